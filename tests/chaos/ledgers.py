"""What the parties to a payment have written down: clients, the service and the provider."""

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, TypeAdapter

from example_service.sandbox.charges import DECLINED_CUSTOMER_ID


@dataclass(frozen=True, slots=True)
class Order:
    """What a client wants to have paid.

    Attributes:
        key: Its idempotency key, the same at every repetition.
        customer_id: One for each order, so that a charge tells whose it is whatever its key; only
            those that are to be declined share one.
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
    """What a client got for one request.

    Attributes:
        key: The order's idempotency key.
        request_id: By which the logs know the request.
        status: None where the connection broke or the client gave up.
        seconds: How long it took.
        payment_id: The payment that it speaks of, if it does.
        is_altered: Whether the request asked for another amount than the order with its key.
        error: How the connection broke; empty where it did not.
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
        idempotency_key: The id of the payment, if all is well.
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
    """All that was written down in one run.

    Attributes:
        orders: By their keys.
        answers: To every request of the run, as they came.
        payments: What the service has once everything has settled.
        charges: What the provider has charged by then.
        delivered: How many charges were still on their way, and arrived after that.
        closing_answers: To one more repetition of each order after that, by key. They come last,
            because a payment that was lost would be ordered anew by them.
        closing_charges: What the provider has charged after them: the same.
    """

    orders: dict[str, Order] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    delivered: int = 0
    closing_answers: dict[str, Answer] = field(default_factory=dict)
    closing_charges: list[Charge] = field(default_factory=list)
