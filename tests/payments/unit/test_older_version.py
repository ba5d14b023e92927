"""Instances of the version without callers, beside this one and after a rollback."""

# ruff: noqa: S608 - The statements are made from constants of this file.
import asyncio
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Uuid, bindparam, text

from example_service.core.settings import Settings
from example_service.infra.database.base import UTCDateTime
from example_service.infra.database.database import Database, open_database
from example_service.migrations import upgrade
from example_service.payments.models import Payment, PaymentOrder
from example_service.payments.repository import PaymentRepository
from tests.databases import NOON, at
from tests.docs.pages import ROOT
from tests.payments.unit.fakes import ORDER

OTHER_ORDER = PaymentOrder(amount=7, currency="JPY", customer_id="other")
COLUMNS = (
    "id, idempotency_key, amount, currency, customer_id, status, failure_reason, charge_id, "
    "attempts, created_at, due_at, finished_at"
)
INSERT = text(
    "INSERT INTO payments "
    "(id, idempotency_key, amount, currency, customer_id, status, attempts, created_at, due_at) "
    "VALUES (:id, :key, :amount, :currency, :customer_id, 'pending', 0, :created_at, :due_at) "
    f"ON CONFLICT (idempotency_key) DO NOTHING RETURNING {COLUMNS}"
).bindparams(
    bindparam("id", type_=Uuid()),
    bindparam("created_at", type_=UTCDateTime()),
    bindparam("due_at", type_=UTCDateTime()),
)
"""The statement with which that version stored an order."""

FIND = text(f"SELECT {COLUMNS} FROM payments WHERE payments.idempotency_key = :key")
NEWEST = text(
    f"SELECT {COLUMNS} FROM payments ORDER BY payments.created_at DESC, payments.id DESC LIMIT 20"
)


async def order_at_old(database: Database, key: str, order: PaymentOrder = ORDER) -> Any:
    """Order as the older version does. Returns the new row, or None if the key is used."""
    moments = {"created_at": NOON, "due_at": at(30.0)}
    values = {"id": uuid4(), "key": key, **order.model_dump(), **moments}
    async with database.transaction() as session:
        return (await session.execute(INSERT, values)).one_or_none()


async def order_at_new(
    database: Database, key: str, caller: str = "", order: PaymentOrder = ORDER
) -> Payment | None:
    """Order as this version does. Returns the new payment, or None if the caller has one."""
    async with database.transaction() as session:
        payments = PaymentRepository(session)
        await payments.adopt(key, order, caller)
        return await payments.add(uuid4(), key, order, 30.0, caller=caller)


async def found(database: Database, key: str, caller: str) -> Payment | None:
    """The payment of a caller with a key."""
    async with database.transaction() as session:
        return await PaymentRepository(session).find_by_key(key, caller)


async def test_an_old_instance_stores_orders(database: Database) -> None:
    """This version finds them by the same key."""
    old = await order_at_old(database, "k")

    assert old is not None
    assert await order_at_new(database, "k") is None
    payment = await found(database, "k", "")
    assert payment is not None
    assert (payment.order, payment.caller) == (ORDER, "")


@pytest.mark.parametrize("caller", ["", "shop"])
async def test_an_old_instance_pays_no_order_again(database: Database, caller: str) -> None:
    """It finds the orders that this version stored, with or without a caller."""
    stored = await order_at_new(database, "k", caller)

    assert stored is not None
    assert await order_at_old(database, "k") is None
    async with database.transaction() as session:
        [row] = await session.execute(FIND, {"key": "k"})
        [listed] = await session.execute(NEWEST)
    assert row == listed
    assert (row.amount, row.customer_id) == (ORDER.amount, ORDER.customer_id)


async def test_this_version_pays_no_order_of_an_old_instance_again(database: Database) -> None:
    """The payment then belongs to the caller that repeats the order."""
    await order_at_old(database, "k")

    assert await order_at_new(database, "k", "shop") is None
    payment = await found(database, "k", "shop")
    assert payment is not None
    assert payment.order == ORDER


async def test_callers_may_use_a_key_that_an_old_instance_has(database: Database) -> None:
    """Each caller gets its own payment with that key, and only one."""
    await order_at_old(database, "k")
    orders = {"shop": OTHER_ORDER, "reports": OTHER_ORDER}
    for caller, order in orders.items():
        assert await order_at_new(database, "k", caller, order) is not None
        assert await order_at_new(database, "k", caller, order) is None

    for caller, order in orders.items():
        payment = await found(database, "k", caller)
        assert payment is not None
        assert (payment.order, payment.caller) == (order, caller)


async def test_an_order_is_not_paid_again_when_payments_of_others_are_deleted(
    database: Database,
) -> None:
    """A key that becomes free again must not give a caller two payments."""
    await order_at_new(database, "k", "reports")
    await order_at_new(database, "k", "shop")
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM payments WHERE caller = 'reports'"))

    assert await order_at_new(database, "k", "shop") is None


async def test_a_caller_that_gets_the_payments_of_that_time_keeps_its_own(
    database: Database,
) -> None:
    """A key that it used itself still refers to its own order."""
    await order_at_old(database, "k")
    await order_at_new(database, "k", "shop", OTHER_ORDER)
    async with database.transaction() as session:
        await session.execute(text("UPDATE payments SET caller = 'shop' WHERE caller = ''"))

    payment = await found(database, "k", "shop")
    assert payment is not None
    assert payment.order == OTHER_ORDER


def test_the_schema_of_the_older_version_has_all_payments(
    empty_database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down and up again, none is lost, and the old statements work before and after."""
    monkeypatch.setenv("DATABASE_URL", empty_database.database_url.get_secret_value())
    config = Config(ROOT / "alembic.ini")

    async def order(key: str) -> Any:
        async with open_database(empty_database) as database:
            return await order_at_old(database, key)

    command.upgrade(config, "0d1bcfb77cb1")
    assert asyncio.run(order("before")) is not None
    asyncio.run(upgrade(empty_database))
    assert asyncio.run(order("meanwhile")) is not None
    command.downgrade(config, "0d1bcfb77cb1")

    for known in ("before", "meanwhile"):
        assert asyncio.run(order(known)) is None
    assert asyncio.run(order("after")) is not None
