"""Fixtures for the tests of all integrations."""

import pytest

from example_service.infra.resilience import CircuitBreakerRegistry
from example_service.infra.resilience.testing import FakeClock, RecordingListener


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the breakers."""
    return FakeClock()


@pytest.fixture
def listener() -> RecordingListener:
    """Records the events of the breakers."""
    return RecordingListener()


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """The registry of a test's breakers."""
    return CircuitBreakerRegistry()
