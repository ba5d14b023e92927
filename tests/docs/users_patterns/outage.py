"""Outages for the services of these tests."""

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
)

WAREHOUSE = "https://warehouse.test"


async def trip(breaker: CircuitBreaker) -> None:
    """Fail until the circuit opens."""

    async def fail() -> None:
        raise ConnectionError

    for _ in range(breaker.failure_threshold):
        with pytest.raises(ConnectionError):
            await breaker.call(fail)
    assert breaker.is_open
