"""What the tests of integrations have in common."""

import pytest

from example_service.infra.resilience import CircuitBreakerRegistry
from example_service.infra.resilience.testing import FakeClock, RecordingListener


@pytest.fixture
def clock() -> FakeClock:
    """What the breakers read the time from."""
    return FakeClock()


@pytest.fixture
def listener() -> RecordingListener:
    """Hears what the breakers report."""
    return RecordingListener()


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """Where the breakers of a test show up."""
    return CircuitBreakerRegistry()
