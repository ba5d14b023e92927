"""What the parties to a payment recorded: clients, service and provider."""

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, TypeAdapter

from example_service.sandbox.charges import DECLINED_CUSTOMER_ID


@dataclass(frozen=True, slots=True)
class Order:
    """A payment that a client wants to make.

    Attributes:
        key: Its idempotency key, the same at every repetition.
        customer_id: Unique to the order, so that a charge with any key can be attributed. Only
            orders that will be declined share one.
        amount: In minor units.
        currency: ISO 4217 code.
    """

    key: str
    customer_id: str
    amount: int
    currency: str

    @property
    def is_declined(self) -> bool:
        """Whether the provider declines it."""
        return self.customer_id == DECLINED_CUSTOMER_ID


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request of a client.

    Attributes:
        key: The order's idempotency key.
        request_id: The ID of the request in the logs.
        status: None if the connection broke or the client gave up.
        seconds: The duration of the request.
        payment_id: The payment that the answer refers to, if any.
        is_altered: Whether the request had another amount than the order with its key.
        error: Why the connection broke; empty if it did not.
    """

    key: str
    request_id: str
    status: int | None
    seconds: float
    payment_id: str | None = None
    is_altered: bool = False
    error: str = ""


class Payment(BaseModel):
    """A payment as the service lists it."""

    model_config = ConfigDict(frozen=True)

    id: str
    status: str
    amount: int
    currency: str
    customer_id: str
    failure_reason: str | None


class Charge(BaseModel):
    """A charge as the provider lists it.

    Attributes:
        idempotency_key: The ID of the payment, if all is well.
        times_charged: How often money moved for this key.
    """

    model_config = ConfigDict(frozen=True)

    idempotency_key: str
    amount: int
    currency: str
    customer_id: str
    times_charged: int


PAYMENTS: TypeAdapter[list[Payment]] = TypeAdapter(list[Payment])
CHARGES: TypeAdapter[list[Charge]] = TypeAdapter(list[Charge])


@dataclass(slots=True)
class Ledgers:
    """Everything recorded in one run.

    Attributes:
        orders: The orders by key.
        answers: The answers to all requests in order of arrival.
        payments: The payments of the service after everything has settled.
        charges: The charges of the provider at that time.
        delivered: The number of late charges that arrived after that.
        closing_answers: The answers to a last repetition of each order, by key. It comes last,
            because it would order a lost payment again.
        closing_charges: The charges of the provider after that, which should be the same.
    """

    orders: dict[str, Order] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    delivered: int = 0
    closing_answers: dict[str, Answer] = field(default_factory=dict)
    closing_charges: list[Charge] = field(default_factory=list)
