"""Validates and parses the provider's answers.

Gateways, caches and captive portals between this service and the provider may answer in its place.
An answer is only valid if its content type is JSON, it matches its row of the contract in
`docs/payments.md`, and it contains the key or the currency of the call. Any other answer raises
`InvalidProviderAnswerError`, and the outcome of the payment remains unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from example_service.api.request.strict_json import parse_json
from example_service.payments.exceptions import (
    ChargeInProgressError,
    InvalidProviderAnswerError,
    UnknownCurrencyError,
)
from example_service.payments.models import (
    MAX_CHARGE_ID_LENGTH,
    ExchangeRate,
    FailureReason,
    PaymentOrder,
)

ModelT = TypeVar("ModelT", bound=BaseModel)

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response, from the provider or something in its place.

    Attributes:
        status_code: The HTTP status.
        content_type: The `Content-Type` header. Empty if there is none.
        body: The body.
    """

    status_code: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Charged:
    """The provider has charged the order, now or in an earlier attempt.

    Attributes:
        charge_id: The provider's id of the charge.
    """

    charge_id: str


@dataclass(frozen=True, slots=True)
class NotCharged:
    """The provider has not charged the order, and guarantees that it never will.

    Attributes:
        reason: `DECLINED`, `REFUSED` or `CANCELLED`.
    """

    reason: FailureReason


Outcome: TypeAlias = Charged | NotCharged
"""The outcome of a key at the provider. It is final."""


class _Words(BaseModel):
    # Unknown members are allowed.
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)


class _KeyStatus(_Words):
    idempotency_key: str
    status: str


class _Reason(_Words):
    reason: str


class _Charge(_Words):
    # NUL is the only character that JSON can contain and PostgreSQL cannot store.
    id: Annotated[str, Field(pattern=r"^[^\x00]+$", max_length=MAX_CHARGE_ID_LENGTH)]
    amount: int
    currency: str
    customer_id: str
    status: Literal["succeeded"]


class _UnknownCurrency(_Words):
    currency: str
    error: str


_Row: TypeAlias = Mapping[int, frozenset[str]]
"""The allowed values of the member `status`, for each HTTP status."""

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
    """Parse the answer to a charge.

    Raises:
        ChargeInProgressError: If another request with the key is in progress.
        InvalidProviderAnswerError: If the answer is not valid.
    """
    word = _word(answer, payment_id, _CHARGE_ROW)
    if word in {FailureReason.DECLINED, FailureReason.REFUSED}:
        _parse(_Reason, answer)
    return _outcome(answer, word, payment_id, order)


def read_found(answer: Answer, payment_id: UUID, order: PaymentOrder) -> Outcome | None:
    """Parse the answer to a lookup. None if the provider does not know the key at the moment.

    Raises:
        InvalidProviderAnswerError: If the answer is not valid.
    """
    word = _word(answer, payment_id, _FIND_ROW)
    return None if word == "unknown" else _outcome(answer, word, payment_id, order)


def read_cancelled(answer: Answer, payment_id: UUID, order: PaymentOrder) -> Outcome:
    """Parse the answer to a cancellation.

    Raises:
        ChargeInProgressError: If another request with the key is in progress.
        InvalidProviderAnswerError: If the answer is not valid.
    """
    return _outcome(answer, _word(answer, payment_id, _CANCEL_ROW), payment_id, order)


def read_rate(answer: Answer, currency: str) -> ExchangeRate:
    """Parse the answer to a request for an exchange rate.

    Raises:
        UnknownCurrencyError: If the provider has no rate for the currency.
        InvalidProviderAnswerError: If the answer is not valid.
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
    """Return the status of the key, if the answer is valid for it."""
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
        # Of two members with the same name, the model would use the last one.
        parse_json(answer.body)
        return model.model_validate_json(answer.body)
    except (ValueError, RecursionError) as error:
        raise _not_in_contract(answer) from error


def _not_in_contract(answer: Answer) -> InvalidProviderAnswerError:
    return InvalidProviderAnswerError(f"The answer {answer.status_code} does not fit the contract.")
