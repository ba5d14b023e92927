"""Breakers of this process that take part in a fleet."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from example_service.infra.fleet.member import Member
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.fleet.store import Store
from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry


@asynccontextmanager
async def joined_fleet(store: Store, registry: CircuitBreakerRegistry) -> AsyncIterator[Member]:
    """Let the breakers take part in the fleet until the end of the block."""
    breakers = ProcessBreakers(registry)
    member = Member(store, breakers)
    with breakers.reporting_to(member):
        async with member.running():
            yield member


def fail(breaker: CircuitBreaker) -> None:
    """Open the circuit."""
    for _ in range(breaker.failure_threshold):
        with pytest.raises(ZeroDivisionError):
            breaker.call_sync(lambda: 1 / 0)
    # A short wait may already be over.
    assert breaker.get_metrics()["opened_count"] == 1


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition is met."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0.01)
