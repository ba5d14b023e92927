"""What tests of payments share."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from example_service.core.settings import Settings
from example_service.infra.database.database import Database, open_database
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings
from tests.databases import NOON
from tests.payments.unit.fakes import FakeProvider


@pytest.fixture
def clock() -> FakeClock:
    """The time of day, in seconds; it is noon."""
    return FakeClock(NOON.timestamp())


@pytest.fixture
def provider() -> FakeProvider:
    """A provider that is well until it is told otherwise."""
    return FakeProvider()


@pytest.fixture
def service(database: Database, provider: FakeProvider, clock: FakeClock) -> PaymentService:
    """A service with the default settings."""
    return PaymentService(
        database, provider, PaymentSettings(), now=lambda: datetime.fromtimestamp(clock.now, UTC)
    )


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Database]:
    """The same database, as another process holds it."""
    async with open_database(settings) as other:
        yield other
