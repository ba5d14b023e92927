"""Which answers are the provider's own, and what they say.

Between this service and the provider there are gateways, caches and captive portals, which answer
too. An answer counts only if it is labelled as JSON, fits its row of the contract in
`docs/payments.md`, and names the key, or the currency, that was asked about. Anything else raises
`InvalidProviderAnswerError`, and says nothing about the payment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from example_service.payments.exceptions import (
    ChargeInProgressError,
    InvalidProviderAnswerError,
    UnknownCurrencyError,
)
from example_service.payments.models import (
    LONGEST_CHARGE_ID,
    ExchangeRate,
    FailureReason,
    PaymentOrder,
)

ModelT = TypeVar("ModelT", bound=BaseModel)

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, whatever it was that gave it.

    Attributes:
        status_code: Its status.
        content_type: Its `Content-Type`, empty where it had none.
        body: What it said.
    """

    status_code: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Charged:
    """The provider has charged the order, now or at an earlier attempt.

    Attributes:
        charge_id: Its id of the charge.
    """

    charge_id: str


@dataclass(frozen=True, slots=True)
class NotCharged:
    """The provider has not charged the order, and promises that it never will.

    Attributes:
        reason: `DECLINED`, `REFUSED` or `CANCELLED`.
    """

    reason: FailureReason


Outcome: TypeAlias = Charged | NotCharged
"""What has become of a key at the provider. It is final."""


class _Words(BaseModel):
    # Members that are not used here may be there.
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)


class _KeyStatus(_Words):
    idempotency_key: str
    status: str


class _Reason(_Words):
    reason: str


class _Charge(_Words):
    # NUL is the one character that a JSON text may hold and PostgreSQL cannot store.
    id: Annotated[str, Field(pattern=r"^[^\x00]+$", max_length=LONGEST_CHARGE_ID)]
    amount: int
    currency: str
    customer_id: str
    status: Literal["succeeded"]


class _UnknownCurrency(_Words):
    currency: str
    error: str


_Row: TypeAlias = Mapping[int, frozenset[str]]
"""By status code: which words may say what has become of a key."""

_DECIDED: Final = frozenset({"succeeded", "declined", "refused", "cancelled"})
_CHARGE_ROW: Final[_Row] = {
    200: frozenset({"succeeded"}),
    201: frozenset({"succeeded"}),
    400: frozenset({"refused"}),
    402: frozenset({"declined"}),
    409: frozenset({"cancelled", "in_progress"}),
    422: frozenset({"refused"}),
}
_FIND_ROW: Final[_Row] = {200: _DECIDED, 404: frozenset({"unknown"})}
_CANCEL_ROW: Final[_Row] = {200: _DECIDED, 409: frozenset({"in_progress"})}
_RATE_ROW: Final[Mapping[int, type[ExchangeRate | _UnknownCurrency]]] = {
    200: ExchangeRate,
    404: _UnknownCurrency,
}


def read_charge(answer: Answer, payment_id: UUID, order: PaymentOrder) -> Outcome:
    """Read the answer to a charge.

    Raises:
        ChargeInProgressError: If another request with the key is at work.
        InvalidProviderAnswerError: If the answer is not the provider's own.
    """
    word = _word(answer, payment_id, _CHARGE_ROW)
    if word in {FailureReason.DECLINED, FailureReason.REFUSED}:
        _parse(_Reason, answer)
    return _outcome(answer, word, payment_id, order)


def read_found(answer: Answer, payment_id: UUID, order: PaymentOrder) -> Outcome | None:
    """Read the answer to a look-up: None where the provider knows nothing of the key now.

    Raises:
        InvalidProviderAnswerError: If the answer is not the provider's own.
    """
    word = _word(answer, payment_id, _FIND_ROW)
    return None if word == "unknown" else _outcome(answer, word, payment_id, order)


def read_cancelled(answer: Answer, payment_id: UUID, order: PaymentOrder) -> Outcome:
    """Read the answer to a cancellation.

    Raises:
        ChargeInProgressError: If another request with the key is at work.
        InvalidProviderAnswerError: If the answer is not the provider's own.
    """
    return _outcome(answer, _word(answer, payment_id, _CANCEL_ROW), payment_id, order)


def read_rate(answer: Answer, currency: str) -> ExchangeRate:
    """Read the answer to a question for an exchange rate.

    Raises:
        UnknownCurrencyError: If the provider has no rate for the currency.
        InvalidProviderAnswerError: If the answer is not the provider's own.
    """
    model = _RATE_ROW.get(answer.status_code)
    if model is None:
        raise _not_in_contract(answer)
    said = _parse(model, answer)
    if said.currency != currency:
        raise InvalidProviderAnswerError("The answer is about another currency.")
    if isinstance(said, ExchangeRate):
        return said
    raise UnknownCurrencyError


def _word(answer: Answer, payment_id: UUID, row: _Row) -> str:
    """Return what the provider says has become of the key."""
    if answer.status_code not in row:
        raise _not_in_contract(answer)
    said = _parse(_KeyStatus, answer)
    if said.idempotency_key != str(payment_id):
        raise InvalidProviderAnswerError("The answer is about another key.")
    if said.status not in row[answer.status_code]:
        raise _not_in_contract(answer)
    if said.status == "in_progress":
        raise ChargeInProgressError
    return said.status


def _outcome(answer: Answer, word: str, payment_id: UUID, order: PaymentOrder) -> Outcome:
    if word != "succeeded":
        return NotCharged(FailureReason(word))
    charge = _parse(_Charge, answer)
    if charge.model_dump(include=set(PaymentOrder.model_fields)) != order.model_dump():
        raise InvalidProviderAnswerError(f"The charge of {payment_id} is for another order.")
    return Charged(charge.id)


def _parse(model: type[ModelT], answer: Answer) -> ModelT:
    if answer.content_type.partition(";")[0].strip().lower() != _JSON:
        raise InvalidProviderAnswerError(
            f"The answer {answer.status_code} is not labelled as JSON."
        )
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        raise _not_in_contract(answer) from error


def _not_in_contract(answer: Answer) -> InvalidProviderAnswerError:
    return InvalidProviderAnswerError(f"The answer {answer.status_code} does not fit the contract.")
