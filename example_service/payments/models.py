"""What the payments domain speaks of."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticKnownError
from sqlalchemy import CheckConstraint, Index, Integer, String, UniqueConstraint, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from example_service.infra.database.base import Base, UTCDateTime, Word
from example_service.payments.currencies import CURRENCIES

LARGEST_AMOUNT: Final = 99_999_999
"""In minor units: a million of most currencies, less one of the smallest coins."""

LONGEST_CHARGE_ID: Final = 255
LONGEST_CUSTOMER_ID: Final = 64
LONGEST_IDEMPOTENCY_KEY: Final = 255
LONGEST_CALLER: Final = 64

UNNAMED: Final = ""
"""The caller of every request where callers have no names, as without `API__KEYS`."""

Currency = Annotated[
    str,
    Field(pattern="^[A-Z]{3}$", description="ISO 4217 code in capitals.", examples=["EUR"]),
]


def _check_currency(code: str) -> str:
    if code not in CURRENCIES:
        raise PydanticKnownError("literal_error", {"expected": "a currency code of ISO 4217"})
    return code


class PaymentOrder(BaseModel):
    """An order to charge a customer."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    amount: Annotated[
        int,
        Field(
            strict=True,
            ge=1,
            le=LARGEST_AMOUNT,
            description="In minor units of the currency: cents of EUR, whole JPY. Digits alone: "
            "`1250.0` is refused, because such a client computes in fractions.",
            examples=[1250],
        ),
    ]
    currency: Annotated[
        Currency,
        AfterValidator(_check_currency),
        Field(json_schema_extra={"enum": sorted(CURRENCIES)}),
    ]
    customer_id: Annotated[
        str,
        Field(
            pattern=rf"^[A-Za-z0-9][A-Za-z0-9._:@-]{{0,{LONGEST_CUSTOMER_ID - 1}}}$",
            description="Id of the customer: 1 to 64 letters, digits and `._:@-`, the first of "
            "them a letter or a digit.",
            examples=["customer-7"],
        ),
    ]


class PaymentStatus(StrEnum):
    """How far a payment is. What has succeeded or failed never changes."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNRESOLVED = "unresolved"
    """Given up at a provider that cannot cancel. It may have been charged, or may be at any later
    time, so that people have to find out."""


class FailureReason(StrEnum):
    """Why a payment has failed; in no case was anything charged, nor will it ever be."""

    DECLINED = "declined"
    """The provider has declined it, as for a card that is exhausted."""
    REFUSED = "refused"
    """The provider does not accept what was asked for, and never will."""
    EXPIRED = "expired"
    """It could not be charged within `PAYMENTS__GIVE_UP_SECONDS`, and was cancelled then."""
    CANCELLED = "cancelled"
    """It was cancelled at the provider, not by this service."""


class Payment(Base):
    """A payment that was accepted: it will be charged exactly once, or fail with a reason.

    All moments are of the database's clock.

    Attributes:
        id: Also the idempotency key towards the provider.
        caller: Name of the caller that ordered it, the only one that sees it; or `UNNAMED`.
        idempotency_key: The client's; with the caller's name if another caller has used it before.
        status: A `PaymentStatus`, or a word of a newer version.
        failure_reason: A `FailureReason`, or a word of a newer version.
        attempts: Calls to the provider that ended without a result.
        due_at: When a process may work on it, None once none will. The one that takes it up moves
            this into the future, and so has it until then.
        charge_id: The provider's id of the charge, once it has succeeded.
        finished_at: When its result was recorded.
    """

    __tablename__ = "payments"
    __table_args__ = (
        UniqueConstraint("idempotency_key"),
        CheckConstraint("amount > 0", name="amount_is_positive"),
        CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="pending_is_due"),
        CheckConstraint(
            "(status = 'failed') = (failure_reason IS NOT NULL)", name="failed_has_reason"
        ),
        CheckConstraint(
            "(status = 'succeeded') = (charge_id IS NOT NULL)", name="succeeded_has_charge"
        ),
        Index(None, "caller", "created_at", "id"),
        # Instances of the version before callers list all payments.
        Index(None, "created_at", "id"),
        # Few payments are pending, so this stays small however many there are.
        Index(
            None,
            "due_at",
            postgresql_where=text("due_at IS NOT NULL"),
            sqlite_where=text("due_at IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    caller: Mapped[str] = mapped_column(String(LONGEST_CALLER), default=UNNAMED, server_default="")
    idempotency_key: Mapped[str] = mapped_column(String(LONGEST_IDEMPOTENCY_KEY))
    amount: Mapped[int] = mapped_column(Integer)
    currency: Mapped[str] = mapped_column(String(3))
    customer_id: Mapped[str] = mapped_column(String(LONGEST_CUSTOMER_ID))
    status: Mapped[PaymentStatus | str] = mapped_column(Word(PaymentStatus))
    failure_reason: Mapped[FailureReason | str | None] = mapped_column(Word(FailureReason))
    charge_id: Mapped[str | None] = mapped_column(String(LONGEST_CHARGE_ID))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    due_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    @property
    def order(self) -> PaymentOrder:
        """What was asked for, whether or not it would still be accepted today."""
        return PaymentOrder.model_construct(
            amount=self.amount, currency=self.currency, customer_id=self.customer_id
        )


class ExchangeRate(BaseModel):
    """How much of one currency a unit of another buys, at the time of asking."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    currency: Currency
    base: Currency
    rate: Annotated[
        Decimal,
        Field(
            gt=0,
            max_digits=30,
            description="Units of `currency` for one unit of `base`, written exactly as text.",
            examples=["0.92"],
        ),
    ]
