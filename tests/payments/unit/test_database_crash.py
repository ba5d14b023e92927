"""Payments while PostgreSQL crashes and comes back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from example_service.core.settings import Settings
from example_service.infra.database.database import Database, open_database
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.models import Payment, PaymentStatus
from example_service.payments.repository import PaymentRepository
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings
from example_service.payments.worker import PaymentWorker
from tests.databases import PostgresDatabases, at
from tests.payments.unit.fakes import ORDER, FakeProvider, nothing, pending_payment, stored

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60.0
SETTINGS = PaymentSettings(poll_seconds=0.01)


@pytest.fixture
async def database(postgres_settings: Settings) -> AsyncIterator[Database]:
    """The database with a circuit that becomes half-open soon after it has opened."""
    circuit_breaker_registry.configure({"database": {"recovery_timeout": 0.05}})
    async with open_database(postgres_settings) as database:
        yield database


async def test_a_crash_between_the_charge_and_its_record_loses_nothing(
    service: PaymentService,
    provider: FakeProvider,
    clock: FakeClock,
    postgres_databases: PostgresDatabases,
) -> None:
    """The payment is pending, and the next attempt records the charge without another one."""

    async def crash() -> None:
        postgres_databases.server.crash()

    provider.meanwhile = crash
    payment = await service.pay(ORDER, "k")
    assert payment.status is PaymentStatus.PENDING
    assert provider.charged == {payment.id: 1}

    postgres_databases.server.start()
    provider.meanwhile = nothing
    assert await service.claim_due(1) == []
    clock.advance(SETTINGS.claim_seconds)
    (again,) = await service.claim_due(1)
    finished = await service.process_claim(again)

    assert (finished.status, finished.charge_id) == (
        PaymentStatus.SUCCEEDED,
        f"ch_{payment.id}",
    )
    assert provider.charged == {payment.id: 1}


async def test_the_worker_survives_a_crash(
    service: PaymentService,
    provider: FakeProvider,
    database: Database,
    postgres_databases: PostgresDatabases,
) -> None:
    """It finishes pending payments as soon as the database is back.

    There is only one payment, because a half-open circuit would admit one of several, and the
    others would wait until their claim expires.
    """
    due = [pending_payment(due_at=at(0))]

    async def newest() -> list[Payment]:
        async with database.transaction() as session:
            return list(await PaymentRepository(session).newest(10))

    breaker = CircuitBreaker("payment", registry=None)
    guard = circuit_breaker_registry.get_or_create("database")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await stored(database, *due)
        postgres_databases.server.crash()
        async with PaymentWorker(service, breaker, SETTINGS).running():
            while guard.total_failures < 3:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0.01)
            assert not provider.charged
            postgres_databases.server.start()
            while len(provider.charged) < 1:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0.01)

    assert provider.charged == {payment.id: 1 for payment in due}
    assert [payment.status for payment in await newest()] == [PaymentStatus.SUCCEEDED]
