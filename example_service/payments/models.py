"""The models of the payments domain."""

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

MAX_AMOUNT: Final = 99_999_999
"""In minor units: 999,999.99 in most currencies."""

MAX_CHARGE_ID_LENGTH: Final = 255
MAX_CUSTOMER_ID_LENGTH: Final = 64
MAX_IDEMPOTENCY_KEY_LENGTH: Final = 255
MAX_CALLER_LENGTH: Final = 64

UNNAMED: Final = ""
"""The caller of every request if callers have no names, as without `API__KEYS`."""

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
            le=MAX_AMOUNT,
            description="In minor units of the currency: cents for EUR, whole units for JPY. An "
            "integer: `1250.0` is refused, because it suggests a calculation with fractions.",
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
            pattern=rf"^[A-Za-z0-9][A-Za-z0-9._:@-]{{0,{MAX_CUSTOMER_ID_LENGTH - 1}}}$",
            description="Id of the customer: 1 to 64 letters, digits and `._:@-`, starting with a "
            "letter or digit.",
            examples=["customer-7"],
        ),
    ]


class PaymentStatus(StrEnum):
    """The status of a payment. `succeeded` and `failed` are final."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNRESOLVED = "unresolved"
    """Given up at a provider that cannot cancel. It may have been charged or may be charged later,
    so people have to find out."""


class FailureReason(StrEnum):
    """Why a payment has failed. For every reason, nothing was or will be charged."""

    DECLINED = "declined"
    """The provider declined it, for example because the card's limit was exceeded."""
    REFUSED = "refused"
    """The provider does not accept such a payment."""
    EXPIRED = "expired"
    """It could not be charged within `PAYMENTS__GIVE_UP_SECONDS`, so this service cancelled it."""
    CANCELLED = "cancelled"
    """It was cancelled at the provider, but not by this service."""


class Payment(Base):
    """An accepted payment: it will be charged exactly once, or fail with a reason.

    All times come from the database's clock.

    Attributes:
        id: The id, also used as the idempotency key for the provider.
        caller: The name of the caller that ordered it, or `UNNAMED`. No other caller can see it.
        idempotency_key: The client's key. If another caller has used the key before, it is stored
            with the caller's name and as a digest.
        status: A `PaymentStatus`, or a value of a newer version.
        failure_reason: A `FailureReason`, or a value of a newer version.
        attempts: The number of calls to the provider that ended without a result.
        due_at: When a process may work on it. A process claims the payment by moving this into the
            future. None if there is no more work on it.
        charge_id: The provider's id of the charge, if it has succeeded.
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
        # Instances of the version without callers list all payments.
        Index(None, "created_at", "id"),
        # Few payments are pending, so this index stays small.
        Index(
            None,
            "due_at",
            postgresql_where=text("due_at IS NOT NULL"),
            sqlite_where=text("due_at IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    caller: Mapped[str] = mapped_column(
        String(MAX_CALLER_LENGTH), default=UNNAMED, server_default=""
    )
    idempotency_key: Mapped[str] = mapped_column(String(MAX_IDEMPOTENCY_KEY_LENGTH))
    amount: Mapped[int] = mapped_column(Integer)
    currency: Mapped[str] = mapped_column(String(3))
    customer_id: Mapped[str] = mapped_column(String(MAX_CUSTOMER_ID_LENGTH))
    status: Mapped[PaymentStatus | str] = mapped_column(Word(PaymentStatus))
    failure_reason: Mapped[FailureReason | str | None] = mapped_column(Word(FailureReason))
    charge_id: Mapped[str | None] = mapped_column(String(MAX_CHARGE_ID_LENGTH))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    due_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    @property
    def order(self) -> PaymentOrder:
        """The order of this payment. It is not validated, because limits may have changed since."""
        return PaymentOrder.model_construct(
            amount=self.amount, currency=self.currency, customer_id=self.customer_id
        )


class ExchangeRate(BaseModel):
    """The current price of one unit of a base currency in another currency."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    currency: Currency
    base: Currency
    rate: Annotated[
        Decimal,
        Field(
            gt=0,
            max_digits=30,
            description="Units of `currency` for one unit of `base`, as text to keep it exact.",
            examples=["0.92"],
        ),
    ]
