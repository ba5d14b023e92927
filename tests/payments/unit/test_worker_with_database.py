"""The worker with the real service and a database."""

import asyncio

import httpx
import pytest

from example_service.infra.database.database import Database
from example_service.infra.resilience import CircuitBreaker
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.exceptions import ProviderUnavailableError
from example_service.payments.models import Payment, PaymentStatus
from example_service.payments.provider import PaymentProvider
from example_service.payments.repository import PaymentRepository
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings
from example_service.payments.worker import PaymentWorker
from tests.databases import at
from tests.payments.unit.fakes import FakeProvider, moments, nothing, pending_payment, stored

DEADLINE_SECONDS = 60.0
SETTINGS = PaymentSettings(batch_size=4, poll_seconds=1.0)


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    """The provider's breaker."""
    return CircuitBreaker("payment", half_open_max_calls=3, clock=clock, registry=None)


class TestWithDatabase:
    """The worker with the real service and a database."""

    async def store(self, database: Database, number: int) -> list[Payment]:
        """Store that many payments that are due at noon."""
        due = [pending_payment(due_at=at(0)) for _ in range(number)]
        await stored(database, *due)
        return due

    def service(
        self, database: Database, provider: PaymentProvider, clock: FakeClock
    ) -> PaymentService:
        """A service with this provider."""
        return PaymentService(
            database, provider, SETTINGS, moment=moments(clock), steady_clock=clock
        )

    async def test_pending_payments_are_finished(
        self, database: Database, clock: FakeClock, breaker: CircuitBreaker
    ) -> None:
        """Each is charged once, however many workers there are."""
        provider = FakeProvider()
        due = await self.store(database, 10)
        workers = [
            PaymentWorker(self.service(database, provider, clock), breaker, SETTINGS)
            for _ in range(3)
        ]
        await asyncio.gather(*(worker.run_once() for worker in workers))

        async with database.transaction() as session:
            newest = await PaymentRepository(session).newest(20)
        assert [payment.status for payment in newest] == [PaymentStatus.SUCCEEDED] * 10
        assert provider.charged == {payment.id: 1 for payment in due}
        assert len(provider.calls) == 10

    async def test_work_that_was_cut_off_is_due_again_after_the_claim(
        self, database: Database, clock: FakeClock, breaker: CircuitBreaker
    ) -> None:
        """Another worker, in any process, finishes it."""
        provider, begun = FakeProvider(), asyncio.Event()

        async def hang() -> None:
            begun.set()
            await asyncio.Event().wait()

        provider.meanwhile = hang
        (payment,) = await self.store(database, 1)
        service = self.service(database, provider, clock)
        worker = PaymentWorker(service, breaker, SETTINGS, stop_seconds=0.0)
        async with asyncio.timeout(DEADLINE_SECONDS), worker.running():
            await begun.wait()
        assert not provider.charged

        provider.meanwhile = nothing
        await worker.run_once()
        assert not provider.charged
        clock.advance(SETTINGS.claim_seconds)
        await worker.run_once()
        assert provider.charged == {payment.id: 1}

    async def test_a_failing_provider_is_left_alone_after_a_while(
        self, database: Database, clock: FakeClock
    ) -> None:
        """The circuit opens in the second batch, and the remaining payments stay unclaimed."""
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return httpx.Response(503)

        breaker = CircuitBreaker(
            "payment", expected_exception=ProviderUnavailableError, clock=clock, registry=None
        )
        await self.store(database, 20)
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            provider = PaymentProvider(client, "https://provider.test", breaker)
            worker = PaymentWorker(self.service(database, provider, clock), breaker, SETTINGS)
            waits = [await worker.run_once() for _ in range(5)]

        assert waits == [0.0, 0.0, 5.0, 5.0, 5.0]
        assert 5 <= len(requests) <= 8
