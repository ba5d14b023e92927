"""The orders that the payments domain accepts, and the rows that its table accepts."""

from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError

from example_service.infra.database.database import Database
from example_service.payments.models import FailureReason, Payment, PaymentOrder, PaymentStatus
from tests.databases import NOON, at
from tests.payments.unit.fakes import ORDER, pending_payment


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1},
        {"amount": 99_999_999},
        {"currency": "JPY"},
        {"customer_id": "7"},
        {"customer_id": "a" * 64},
        {"customer_id": "Kim.Lee_2@example-shop:eu"},
    ],
    ids=str,
)
def test_an_order_within_the_limits_is_accepted(change: dict[str, Any]) -> None:
    """The limits are inclusive, and values are not changed."""
    given = ORDER.model_dump() | change
    assert PaymentOrder.model_validate(given).model_dump() == given


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"amount": 0}, "greater_than_equal"),
        ({"amount": -1}, "greater_than_equal"),
        ({"amount": 100_000_000}, "less_than_equal"),
        ({"amount": 10.0}, "int_type"),
        ({"amount": "10"}, "int_type"),
        ({"amount": True}, "int_type"),
        ({"amount": None}, "int_type"),
        ({"currency": "eur"}, "string_pattern_mismatch"),
        ({"currency": "EURO"}, "string_pattern_mismatch"),
        ({"currency": "EUR\n"}, "string_pattern_mismatch"),
        ({"currency": "ABC"}, "literal_error"),
        ({"customer_id": ""}, "string_pattern_mismatch"),
        ({"customer_id": "a" * 65}, "string_pattern_mismatch"),
        ({"customer_id": "-7"}, "string_pattern_mismatch"),
        ({"customer_id": "Ł"}, "string_pattern_mismatch"),
        ({"customer_id": "a\n"}, "string_pattern_mismatch"),
        ({"customer_id": "a\x00"}, "string_pattern_mismatch"),
        ({"customer_id": 7}, "string_type"),
        ({"note": "thanks"}, "extra_forbidden"),
    ],
    ids=str,
)
def test_an_order_outside_the_limits_is_refused(change: dict[str, Any], error: str) -> None:
    """There is one error, which does not repeat the value."""
    with pytest.raises(ValidationError) as caught:
        PaymentOrder.model_validate(ORDER.model_dump() | change)

    assert [detail["type"] for detail in caught.value.errors()] == [error]
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize("missing", ["amount", "currency", "customer_id"])
def test_an_order_needs_all_of_its_members(missing: str) -> None:
    """Money has no defaults."""
    with pytest.raises(ValidationError):
        PaymentOrder.model_validate(ORDER.model_dump(exclude={missing}))


def test_a_payment_knows_its_order() -> None:
    """The order is returned unchanged."""
    assert pending_payment().order == ORDER


async def store(database: Database, payment: Payment) -> None:
    """Add a payment in its own transaction."""
    async with database.transaction() as session:
        session.add(payment)


FAILED = {"status": PaymentStatus.FAILED, "due_at": None, "finished_at": at(1)}
SUCCEEDED = {"status": PaymentStatus.SUCCEEDED, "due_at": None, "finished_at": at(1)}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {**SUCCEEDED, "charge_id": "ch_1"},
        {"status": PaymentStatus.UNRESOLVED, "due_at": None},
        *({**FAILED, "failure_reason": reason} for reason in FailureReason),
    ],
    ids=str,
)
async def test_a_payment_comes_back_as_it_was_stored(
    values: dict[str, Any], database: Database
) -> None:
    """This covers every status."""
    payment = pending_payment(**values)
    columns = [column.key for column in Payment.__mapper__.column_attrs]
    given = {name: getattr(payment, name) for name in columns}
    await store(database, payment)

    async with database.transaction() as session:
        found = await session.get_one(Payment, given["id"])
    assert {name: getattr(found, name) for name in columns} == given


async def test_words_are_stored_as_text(database: Database) -> None:
    """A new status or reason needs no migration."""
    await store(database, pending_payment(**FAILED, failure_reason=FailureReason.EXPIRED))

    async with database.transaction() as session:
        rows = await session.execute(text("SELECT status, failure_reason FROM payments"))
        assert rows.all() == [("failed", "expired")]


async def test_words_of_a_newer_version_are_read_as_they_are(database: Database) -> None:
    """They are stored unchanged; known words become members of their enumeration."""
    await store(database, pending_payment(**FAILED, failure_reason=FailureReason.EXPIRED))
    async with database.transaction() as session:
        await session.execute(text("UPDATE payments SET failure_reason = 'sanctioned'"))
    async with database.transaction() as session:
        (payment,) = (await session.scalars(select(Payment))).all()
        payment.attempts += 1
    async with database.transaction() as session:
        (again,) = (await session.scalars(select(Payment))).all()

    assert (again.failure_reason, again.attempts) == ("sanctioned", 1)
    assert again.status is PaymentStatus.FAILED


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"amount": 0}, "amount_is_positive"),
        ({"due_at": None}, "pending_is_due"),
        ({**SUCCEEDED, "charge_id": "ch_1", "due_at": NOON}, "pending_is_due"),
        (FAILED, "failed_has_reason"),
        ({"failure_reason": FailureReason.DECLINED}, "failed_has_reason"),
        (SUCCEEDED, "succeeded_has_charge"),
        (
            {**FAILED, "failure_reason": FailureReason.DECLINED, "charge_id": "ch_1"},
            "succeeded_has_charge",
        ),
    ],
    ids=str,
)
async def test_a_payment_that_contradicts_itself_cannot_be_stored(
    values: dict[str, Any], constraint: str, database: Database
) -> None:
    """The database refuses it, whatever the client."""
    with pytest.raises(IntegrityError, match=f"ck_payments_{constraint}"):
        await store(database, pending_payment(**values))


async def test_one_key_is_one_payment(database: Database) -> None:
    """A second payment with the same key cannot be stored."""
    await store(database, pending_payment(idempotency_key="k"))
    with pytest.raises(IntegrityError, match="idempotency_key"):
        await store(database, pending_payment(idempotency_key="k"))


async def test_a_moment_needs_a_time_zone(database: Database) -> None:
    """Otherwise it would be unclear when the payment is due."""
    with pytest.raises(StatementError, match="time zone"):
        await store(database, pending_payment(due_at=NOON.replace(tzinfo=None)))
