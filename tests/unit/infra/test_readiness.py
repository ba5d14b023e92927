"""Readiness checks: simultaneous probes share a run, and its outcome is kept for a while."""

import asyncio
import json

import pytest

from example_service.core.logging import configure_logging
from example_service.core.settings import Settings
from example_service.infra.readiness import Check, Readiness, critical_breakers
from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry
from example_service.infra.resilience.testing import FakeClock, opened


class FakeDependency:
    """A dependency to check; the test decides when it answers, and what."""

    def __init__(self) -> None:
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()
        self.fault_now: str | None = None

    async def fault(self) -> str | None:
        """The current fault of the dependency."""
        self.asked += 1
        self.was_asked.set()
        await self.answering.wait()
        return self.fault_now


@pytest.fixture
def dependency() -> FakeDependency:
    """A healthy dependency."""
    return FakeDependency()


@pytest.fixture
def clock() -> FakeClock:
    """The time."""
    return FakeClock()


@pytest.fixture
def readiness(dependency: FakeDependency, clock: FakeClock) -> Readiness:
    """The readiness of a service with this dependency."""
    return Readiness([Check("dependency", dependency.fault)], clock=clock)


async def test_without_faults_the_service_is_ready(readiness: Readiness) -> None:
    """If no check reports a fault, the result is empty."""
    assert await readiness.faults() == {}


async def test_simultaneous_probes_share_one_run(
    readiness: Readiness, dependency: FakeDependency
) -> None:
    """Many probes cause only one request to the dependency."""
    dependency.answering.clear()
    asking = [asyncio.create_task(readiness.faults()) for _ in range(50)]
    await dependency.was_asked.wait()
    dependency.fault_now = "down"
    dependency.answering.set()
    assert await asyncio.gather(*asking) == [{"dependency": "down"}] * 50
    assert dependency.asked == 1


async def test_an_outcome_is_kept_for_a_second(
    readiness: Readiness, dependency: FakeDependency, clock: FakeClock
) -> None:
    """After that, the dependency is checked again."""
    await readiness.faults()
    dependency.fault_now = "down"
    clock.advance(0.75)
    assert await readiness.faults() == {}
    clock.advance(0.25)
    assert await readiness.faults() == {"dependency": "down"}
    assert dependency.asked == 2


async def test_a_cancelled_probe_does_not_stop_the_others(
    readiness: Readiness, dependency: FakeDependency
) -> None:
    """The run goes on for the probes that are still waiting."""
    dependency.answering.clear()
    impatient, patient = (asyncio.create_task(readiness.faults()) for _ in range(2))
    await dependency.was_asked.wait()
    impatient.cancel()
    dependency.answering.set()
    assert await patient == {}
    assert dependency.asked == 1


async def test_a_check_that_hangs_is_a_fault(dependency: FakeDependency) -> None:
    """It is abandoned at its time limit, and the other checks still count."""
    hanging = FakeDependency()
    hanging.answering.clear()
    checks = [Check("hanging", hanging.fault), Check("fine", dependency.fault)]
    readiness = Readiness(checks, limit_seconds=0)
    assert await readiness.faults() == {"hanging": "no response within 0 seconds"}


async def test_a_check_that_resists_cancellation_delays_no_answer(clock: FakeClock) -> None:
    """Its clean-up may take any time, and it is not started again until then."""
    released, asked = asyncio.Event(), 0

    async def hang() -> None:
        nonlocal asked
        asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            await released.wait()

    readiness = Readiness([Check("database", hang)], limit_seconds=0, clock=clock)
    assert await readiness.faults() == {"database": "no response within 0 seconds"}
    clock.advance(1)
    assert await readiness.faults() == {"database": "no response to an earlier check"}
    assert asked == 1

    released.set()
    for _ in range(3):
        await asyncio.sleep(0)
    clock.advance(1)
    await readiness.faults()
    assert asked == 2


async def test_a_check_that_raises_is_a_fault() -> None:
    """The exception does not reach the probe."""

    async def refused() -> None:
        raise ConnectionRefusedError("by the database")

    readiness = Readiness([Check("database", refused)])
    assert await readiness.faults() == {"database": "ConnectionRefusedError: by the database"}


async def test_changes_are_logged_with_their_reasons(
    readiness: Readiness,
    dependency: FakeDependency,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each change is logged once, not each probe, and without the remaining seconds."""
    configure_logging(Settings(environment="test"))
    for fault in (None, "down", "down for 2 s", "down for 1 s", None, None):
        dependency.fault_now = fault
        await readiness.faults()
        clock.advance(1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["faults"] for line in lines] == [{"dependency": "down"}, {}]


async def test_readiness_works_in_one_loop_after_another() -> None:
    """An application may be served again in another event loop."""
    clock = FakeClock()

    async def fine() -> None:
        return None

    readiness = Readiness([Check("fine", fine)], clock=clock)

    def ask() -> object:
        return asyncio.run(_faults(readiness))

    assert await asyncio.to_thread(ask) == {}
    clock.advance(1)
    assert await asyncio.to_thread(ask) == {}


async def _faults(readiness: Readiness) -> object:
    return await readiness.faults()


async def test_only_critical_breakers_that_are_open_are_faults() -> None:
    """A half-open circuit counts as ready, because only requests can close it."""
    registry, clock = CircuitBreakerRegistry(), FakeClock()
    breakers = [
        CircuitBreaker(
            name, failure_threshold=1, recovery_timeout=5.0, clock=clock, registry=registry
        )
        for name in ("Order-DB", "cache", "other")
    ]
    check = critical_breakers(registry, frozenset({"order_db", "other", "not_made_yet"}))
    assert await check.fault() is None

    async def fail() -> None:
        raise ConnectionError

    for breaker in breakers[:2]:
        with pytest.raises(ConnectionError):
            await breaker.call(fail)
    assert await check.fault() == "open: Order-DB"
    clock.advance(5)
    assert await check.fault() is None


async def test_a_circuit_that_waits_for_a_probe_is_not_a_fault() -> None:
    """Otherwise the instance would get no requests, and so could never probe."""

    class ClosedGate:
        """A gate like a fleet's, which grants a probe only after a call has asked for it."""

        def can_probe(self) -> bool:
            return False

    clock = FakeClock()
    registry = CircuitBreakerRegistry()
    breaker = CircuitBreaker("orders", clock=clock, recovery_timeout=5, registry=registry)
    breaker.machine.gate = ClosedGate()  # type: ignore[assignment]
    check = critical_breakers(registry, frozenset({"orders"}))

    with opened(breaker, clock=clock):
        waiting = await check.fault()
        clock.advance(5.1)
        assert breaker.is_open
        due = await check.fault()

    assert (waiting, due) == ("open: orders", None)
