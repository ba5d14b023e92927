"""The ledger of the sandbox, with at most one charge for each idempotency key."""

from collections import Counter
from typing import Annotated, Final, Literal, TypeAlias
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

DECLINED_CUSTOMER_ID: Final = "declined"
"""A charge for this customer is declined, like a card without credit."""

RATES: Final = {
    "USD": "1.00",
    "AUD": "1.52",
    "BRL": "5.41",
    "CAD": "1.38",
    "CHF": "0.80",
    "CNY": "7.18",
    "EUR": "0.92",
    "GBP": "0.78",
    "INR": "84.10",
    "JPY": "151.30",
    "MXN": "19.85",
    "SEK": "10.60",
}
"""The price of one `BASE_CURRENCY` in each known currency. Fixed, so that demos are repeatable."""

BASE_CURRENCY: Final = "USD"

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
IdempotencyKey = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]


class ChargeRequest(BaseModel):
    """The body of `POST /v1/charges`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    amount: Annotated[int, Field(ge=1, le=99_999_999, strict=True)]
    """The amount in minor units of the currency."""
    currency: Currency
    customer_id: Annotated[str, Field(min_length=1, max_length=255, strict=True)]


class Charge(BaseModel):
    """A successful charge."""

    model_config = ConfigDict(frozen=True)

    id: str
    idempotency_key: str
    amount: int
    currency: str
    customer_id: str
    status: Literal["succeeded"] = "succeeded"


class Ended(BaseModel):
    """The outcome of a key that was not charged and never will be."""

    model_config = ConfigDict(frozen=True)

    idempotency_key: str
    status: Literal["declined", "refused", "cancelled"]
    reason: str | None = None


Outcome: TypeAlias = Charge | Ended
"""The outcome of a key. It is final."""


class ChargedKey(Charge):
    """A charge as `GET /sandbox/charges` lists it."""

    times_charged: int
    """The number of charges for this key. More than 1 is a double charge."""
    requests: int
    """The number of requests with this key that reached the ledger."""


class ChargesReport(BaseModel):
    """All charges since the start or the last `DELETE /sandbox/charges`, oldest first."""

    charges: list[ChargedKey]
    total_charges: int
    """The number of charges for all keys."""


class KeyReusedError(Exception):
    """The key was already used for a different charge."""


class Ledger:
    """Decides the outcome of each key once. No method awaits, so requests do not interleave."""

    def __init__(self) -> None:
        self._movements: list[Charge] = []
        self._outcomes: dict[str, Outcome] = {}
        self._requests: Counter[str] = Counter()

    def charge(self, idempotency_key: str, request: ChargeRequest) -> Outcome:
        """Charge or decline, unless the key already has an outcome.

        Raises:
            KeyReusedError: If the key was charged with another amount, currency or customer.
        """
        self._requests[idempotency_key] += 1
        earlier = self._outcomes.get(idempotency_key)
        if earlier is None:
            return self._decide(self._move_money(idempotency_key, request))
        if isinstance(earlier, Charge) and _order_of(earlier) != request.model_dump():
            raise KeyReusedError
        return earlier

    def refuse(self, idempotency_key: str, reason: str) -> Outcome:
        """Refuse an invalid charge, unless the key already has an outcome."""
        refused = Ended(idempotency_key=idempotency_key, status="refused", reason=reason)
        return self._outcomes.get(idempotency_key) or self._decide(refused)

    def cancel(self, idempotency_key: str) -> Outcome:
        """Cancel the key, so that it is never charged, unless it already has an outcome."""
        cancelled = Ended(idempotency_key=idempotency_key, status="cancelled")
        return self._outcomes.get(idempotency_key) or self._decide(cancelled)

    def find(self, idempotency_key: str) -> Outcome | None:
        """Return the outcome of the key, or None if it has none yet."""
        return self._outcomes.get(idempotency_key)

    def report(self) -> ChargesReport:
        """List the keys that were charged, with the number of charges for each."""
        times = Counter(movement.idempotency_key for movement in self._movements)
        return ChargesReport(
            charges=[
                ChargedKey(
                    **outcome.model_dump(), times_charged=times[key], requests=self._requests[key]
                )
                for key, outcome in self._outcomes.items()
                if isinstance(outcome, Charge)
            ],
            total_charges=len(self._movements),
        )

    def clear(self) -> None:
        """Delete everything, including the idempotency keys."""
        self._movements.clear()
        self._outcomes.clear()
        self._requests.clear()

    def _move_money(self, idempotency_key: str, request: ChargeRequest) -> Outcome:
        if request.customer_id == DECLINED_CUSTOMER_ID:
            return Ended(idempotency_key=idempotency_key, status="declined", reason="card declined")
        charge = Charge(
            id=f"ch_{uuid4().hex}", idempotency_key=idempotency_key, **request.model_dump()
        )
        self._movements.append(charge)
        return charge

    def _decide(self, outcome: Outcome) -> Outcome:
        self._outcomes[outcome.idempotency_key] = outcome
        return outcome


def _order_of(charge: Charge) -> dict[str, object]:
    return charge.model_dump(include=set(ChargeRequest.model_fields))
