"""The breakers of one process in a fleet: breakers that share a name act as one circuit."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from example_service.infra.fleet.directory_store import DirectoryStore
from example_service.infra.fleet.member import Member
from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from tests.unit.infra.fleet.joined_fleet import fail, joined_fleet, until

NAME = "payment"


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """The breakers of this process."""
    return CircuitBreakerRegistry()


@pytest.fixture
async def member(tmp_path: Path, registry: CircuitBreakerRegistry) -> AsyncIterator[Member]:
    """This process as a member of the fleet."""
    async with joined_fleet(DirectoryStore(tmp_path), registry) as member:
        yield member


def breakers(registry: CircuitBreakerRegistry, seconds: float) -> list[CircuitBreaker]:
    """Two breakers with one name, like those of two clients of one dependency."""
    backoff = Backoff(multiplier=100.0, max_timeout=100 * seconds)
    return [
        CircuitBreaker(NAME, recovery_timeout=seconds, backoff=backoff, registry=registry)
        for _ in range(2)
    ]


async def test_a_breaker_follows_another_with_its_name(
    registry: CircuitBreakerRegistry, member: Member
) -> None:
    """The first breaker opens once, with its own reason."""
    first, second = breakers(registry, 60.0)
    fail(first)
    await until(lambda: second.is_open)
    metrics = first.get_metrics()
    assert metrics["opened_count"] == 1
    assert second.get_metrics()["reason"] == f"{metrics['reason']} (opened by {member.name})"


@pytest.mark.usefixtures("member")
async def test_a_failed_probe_of_a_breaker_opens_another_with_its_name_again(
    registry: CircuitBreakerRegistry,
) -> None:
    """The other breaker waits for the new time."""
    first, second = breakers(registry, 0.3)
    fail(first)
    await until(lambda: second.is_open)
    await until(lambda: probe_fails(first))
    await until(lambda: second.get_metrics()["retry_after"] > 0)
    assert first.get_metrics()["opened_count"] == 2


async def test_two_processes_send_as_many_probes_as_successes_are_needed(
    registry: CircuitBreakerRegistry, member: Member, tmp_path: Path
) -> None:
    """While two probes run, a third call is refused, although three may run at once."""
    elsewhere = CircuitBreakerRegistry()
    answer, started = asyncio.Event(), 0

    async def probe() -> None:
        nonlocal started
        started += 1
        await answer.wait()

    async with joined_fleet(DirectoryStore(tmp_path), elsewhere), asyncio.TaskGroup() as calls:
        breakers = [
            CircuitBreaker(NAME, recovery_timeout=0.3, registry=each)
            for each in (registry, elsewhere)
        ]

        async def call(breaker: CircuitBreaker) -> None:
            with contextlib.suppress(CircuitOpenError):
                await breaker.call(probe)

        async def call_for_a_while(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for breaker in breakers:
                    calls.create_task(call(breaker))
                await asyncio.sleep(0.01)

        fail(breakers[0])
        await until(lambda: breakers[1].is_open)
        while started < 2:
            await call_for_a_while(0.05)
        await call_for_a_while(0.4)
        assert (started, breakers[0].success_threshold) == (2, 2)
        answer.set()
        await until(lambda: all(breaker.is_closed for breaker in breakers))
    assert member.is_connected


@pytest.mark.usefixtures("member")
async def test_a_breaker_that_recovers_closes_another_with_its_name(
    registry: CircuitBreakerRegistry,
) -> None:
    """The other breaker has not made a probe itself."""
    first, second = breakers(registry, 0.1)
    fail(first)
    await until(lambda: second.is_open)
    await until(lambda: probe_succeeds(first) and first.is_closed)
    await until(lambda: second.is_closed)
    assert second.get_metrics()["total_successes"] == 0


def probe_fails(breaker: CircuitBreaker) -> bool:
    """Make a call that fails, and return whether it was admitted."""
    try:
        breaker.call_sync(lambda: 1 / 0)
    except ZeroDivisionError:
        return True
    except CircuitOpenError:
        return False
    raise AssertionError("it did not fail")


def probe_succeeds(breaker: CircuitBreaker) -> bool:
    """Make a call that succeeds, and return whether it was admitted."""
    try:
        breaker.call_sync(str)
    except CircuitOpenError:
        return False
    return True
