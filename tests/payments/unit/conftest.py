"""Fixtures of the unit tests of payments."""

from collections.abc import AsyncIterator

import pytest

from example_service.core.settings import Settings
from example_service.infra.database.database import Database
from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.provider import payment_breaker
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings
from tests.databases import NOON, open_patiently
from tests.payments.unit.fakes import FakeProvider, moments


@pytest.fixture
def clock() -> FakeClock:
    """The database's clock in seconds, set to noon."""
    return FakeClock(NOON.timestamp())


@pytest.fixture
def provider() -> FakeProvider:
    """A provider that is healthy unless a test changes it."""
    return FakeProvider()


@pytest.fixture
def service(database: Database, provider: FakeProvider, clock: FakeClock) -> PaymentService:
    """A service with the default settings."""
    return PaymentService(
        database, provider, PaymentSettings(), moment=moments(clock), steady_clock=clock
    )


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Database]:
    """The same database as seen by another process."""
    async with open_patiently(settings) as other:
        yield other


@pytest.fixture
def breaker() -> CircuitBreaker:
    """A payment breaker for each test, which counts like the real one."""
    return payment_breaker(CircuitBreakerRegistry())
