"""Transactions of tests, at a time that the test chooses."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from example_service.infra.database.database import Database
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.models import Payment
from example_service.payments.repository import PaymentRepository, Settled
from tests.databases import at
from tests.payments.unit.fakes import moments

T = TypeVar("T")

DAY = 86_400.0


async def within(
    database: Database, use: Callable[[PaymentRepository], Awaitable[T]], now: float = 0.0
) -> T:
    """Run a function in its own transaction, that many seconds after noon."""
    async with database.transaction() as session:
        moment = moments(FakeClock(at(now).timestamp()))
        return await use(PaymentRepository(session, moment))


async def settled(
    database: Database, use: Callable[[PaymentRepository], Awaitable[Settled]], now: float = 0.0
) -> Payment:
    """A payment after a result was recorded, that many seconds after noon."""
    return (await within(database, use, now)).payment


async def claim(database: Database, limit: int = 10, now: float = 0.0) -> list[Payment]:
    """Claim due payments that many seconds after noon, for half a minute."""
    claimed = await within(database, lambda all_: all_.claim_due(30.0, DAY, limit), now)
    return [payment for payment, _ in claimed]
