"""The sandbox's ledger: one charge and one final outcome for each key."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from example_service.sandbox.charges import (
    DECLINED_CUSTOMER_ID,
    Charge,
    ChargeRequest,
    Ended,
    KeyReusedError,
    Ledger,
    Outcome,
)

TEN_EUROS = ChargeRequest(amount=1000, currency="EUR", customer_id="alice")
DECLINED = ChargeRequest(amount=1000, currency="EUR", customer_id=DECLINED_CUSTOMER_ID)

USES: dict[str, Callable[[Ledger], Outcome]] = {
    "succeeded": lambda ledger: ledger.charge("k", TEN_EUROS),
    "declined": lambda ledger: ledger.charge("k", DECLINED),
    "refused": lambda ledger: ledger.refuse("k", "amount: too small"),
    "cancelled": lambda ledger: ledger.cancel("k"),
}
"""Each use of a key, by the outcome it gives a new key."""


def test_one_key_is_charged_once() -> None:
    """Repeating a request returns the first charge, and the report counts both requests."""
    ledger = Ledger()
    first = ledger.charge("k", TEN_EUROS)
    assert ledger.charge("k", TEN_EUROS) == first
    [charged] = ledger.report().charges
    assert (charged.times_charged, charged.requests) == (1, 2)
    assert ledger.report().total_charges == 1


def test_two_keys_are_two_charges() -> None:
    """Equal charges with two keys are two charges, listed oldest first."""
    ledger = Ledger()
    first, second = ledger.charge("k1", TEN_EUROS), ledger.charge("k2", TEN_EUROS)
    assert isinstance(first, Charge)
    assert isinstance(second, Charge)
    assert first.id != second.id
    assert [charged.idempotency_key for charged in ledger.report().charges] == ["k1", "k2"]
    assert ledger.report().total_charges == 2


@pytest.mark.parametrize(
    "other",
    [
        ChargeRequest(amount=1001, currency="EUR", customer_id="alice"),
        ChargeRequest(amount=1000, currency="USD", customer_id="alice"),
        ChargeRequest(amount=1000, currency="EUR", customer_id="bob"),
    ],
)
def test_a_key_cannot_charge_something_else(other: ChargeRequest) -> None:
    """A reused key with other content is refused and charges nothing."""
    ledger = Ledger()
    first = ledger.charge("k", TEN_EUROS)
    with pytest.raises(KeyReusedError):
        ledger.charge("k", other)
    assert ledger.find("k") == first
    assert ledger.report().total_charges == 1


def test_a_cleared_ledger_knows_no_key() -> None:
    """After clearing, a key can be charged again."""
    ledger = Ledger()
    ledger.charge("k", TEN_EUROS)
    ledger.cancel("other")
    ledger.clear()
    assert ledger.find("k") is None
    assert ledger.report().model_dump() == {"charges": [], "total_charges": 0}
    assert {ledger.charge(key, TEN_EUROS).status for key in ("k", "other")} == {"succeeded"}


@pytest.mark.parametrize("first", USES)
def test_the_outcome_of_a_key_never_changes(first: str) -> None:
    """Every later use of the key gets the first outcome and charges nothing."""
    ledger = Ledger()
    outcome = USES[first](ledger)
    assert outcome.status == first
    moved = ledger.report().total_charges
    if first == "succeeded":
        later = [USES[use](ledger) for use in USES if use != "declined"]
    else:
        later = [use(ledger) for use in USES.values()]
    assert {*later, ledger.find("k")} == {outcome}
    assert ledger.report().total_charges == moved == (first == "succeeded")


def test_a_key_that_was_not_used_has_no_outcome() -> None:
    """Looking it up does not create one."""
    ledger = Ledger()
    assert ledger.find("k") is None
    assert ledger.charge("k", TEN_EUROS).status == "succeeded"


def test_a_key_that_was_not_charged_says_why() -> None:
    """A refusal and a decline have a reason; a cancellation needs none."""
    ledger = Ledger()
    assert ledger.charge("k", DECLINED) == Ended(
        idempotency_key="k", status="declined", reason="card declined"
    )
    assert ledger.cancel("other") == Ended(idempotency_key="other", status="cancelled")


@pytest.mark.parametrize("amount", [0, -1, 100_000_000, 1.0, 10.5, "10", True, None])
def test_an_odd_amount_is_refused(amount: object) -> None:
    """An amount is a positive integer of minor units."""
    with pytest.raises(ValidationError) as caught:
        ChargeRequest.model_validate({**TEN_EUROS.model_dump(), "amount": amount})
    assert [fault["loc"] for fault in caught.value.errors()] == [("amount",)]


@pytest.mark.parametrize("currency", ["eur", "EURO", "EU", "EUR\n", "", 978])
def test_an_odd_currency_is_refused(currency: object) -> None:
    """A currency code is three capital letters."""
    with pytest.raises(ValidationError):
        ChargeRequest.model_validate({**TEN_EUROS.model_dump(), "currency": currency})
