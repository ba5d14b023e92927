"""A call that outlives the probe in which it was made is a call of its own from then on."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import FORMS, DownError, half_opened
from tests.unit.infra.resilience.test_gate import FakeGate


class Background:
    """A guarded call in a task, which runs until the test ends it.

    Args:
        breaker: What guards it.
    """

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._started = asyncio.Event()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it in the current context, and return when it is running."""
        self._task = asyncio.create_task(self._breaker.protected(self._work)())
        await self._started.wait()

    async def end(self, error: BaseException | None = None) -> None:
        """End it."""
        assert self._task is not None
        if isinstance(error, asyncio.CancelledError):
            self._task.cancel()
        elif error is not None:
            self._end.set_exception(error)
        else:
            self._end.set_result(None)
        await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        self._started.set()
        await self._end


def half_open(**parameters: Any) -> tuple[CircuitBreaker, FakeClock]:
    """A half-open breaker with a single slot, and its clock."""
    clock = FakeClock()
    given = {"half_open_max_calls": 1, "success_threshold": 3, **parameters}
    return half_opened(clock, **given), clock


@pytest.mark.parametrize("form", FORMS)
async def test_it_keeps_the_slot_of_the_probe(form: str) -> None:
    """No further probe runs beside it."""
    breaker, _ = half_open()
    background = Background(breaker)
    await FORMS[form](breaker, background.start)
    assert breaker.in_flight == 1
    with pytest.raises(CircuitOpenError):
        await breaker.call(asyncio.sleep, 0)
    await background.end()
    assert breaker.get_metrics()["success_count"] == 2
    await breaker.call(asyncio.sleep, 0)
    assert breaker.is_closed
    assert breaker.in_flight == 0


@pytest.mark.parametrize("form", FORMS)
async def test_its_failure_opens_the_circuit(form: str) -> None:
    """It appears in the totals."""
    breaker, _ = half_open()
    failures = breaker.total_failures
    background = Background(breaker)
    await FORMS[form](breaker, background.start)
    await background.end(DownError())
    assert breaker.is_open
    assert breaker.total_failures == failures + 1
    assert breaker.in_flight == 0


async def test_its_cancellation_frees_the_slot() -> None:
    """It is neutral, as that of any call."""
    breaker, _ = half_open()
    background = Background(breaker)
    await breaker.protected(background.start)()
    await background.end(asyncio.CancelledError())
    assert (breaker.in_flight, breaker.get_metrics()["success_count"]) == (0, 1)
    await breaker.call(asyncio.sleep, 0)


async def test_it_hangs_for_no_longer_than_a_probe_may() -> None:
    """Its own start counts."""
    breaker, clock = half_open(probe_timeout=100.0)
    background = Background(breaker)

    async def probe() -> None:
        clock.advance(30.0)
        await background.start()

    await breaker.protected(probe)()
    clock.advance(99.0)
    assert breaker.is_half_open
    clock.advance(1.0)
    assert breaker.is_open
    failures = breaker.total_failures
    await background.end(DownError())
    assert breaker.total_failures == failures


async def test_after_the_circuit_has_opened_its_outcome_is_late() -> None:
    """It counts in the totals only."""
    breaker, clock = half_open()
    background = Background(breaker)

    async def fail() -> None:
        await background.start()
        raise DownError

    with pytest.raises(DownError):
        await breaker.protected(fail)()
    clock.advance(breaker.backoff.multiplier * breaker.recovery_timeout)
    assert breaker.is_half_open
    failures = breaker.total_failures
    await background.end(DownError())
    assert breaker.is_half_open
    assert breaker.total_failures == failures + 1


async def test_while_the_probe_runs_it_is_a_part_of_it() -> None:
    """This includes its failure, which the probe may handle."""
    breaker, _ = half_open(success_threshold=1)
    failures = breaker.total_failures
    background = Background(breaker)
    async with breaker:
        await background.start()
        await background.end(DownError())
    assert breaker.is_closed
    assert (breaker.total_failures, breaker.total_successes) == (failures, 1)


async def test_what_it_calls_is_a_part_of_it() -> None:
    """Nested calls that outlive the probe together are still one call."""
    breaker, _ = half_open()
    background = Background(breaker)
    started = asyncio.Event()

    @breaker.protected
    async def outer() -> None:
        await background.start()
        started.set()
        await background.end()

    async with breaker:
        task = asyncio.create_task(outer())
        await started.wait()
    await task
    assert breaker.get_metrics()["success_count"] == 2
    assert breaker.in_flight == 0


async def test_what_outlives_a_call_inside_the_probe_is_a_part_of_the_probe() -> None:
    """The probe around both is still running."""
    breaker, _ = half_open()
    background = Background(breaker)
    async with breaker:
        await breaker.protected(background.start)()
        await background.end()
    assert breaker.get_metrics()["success_count"] == 1
    assert breaker.in_flight == 0


async def test_a_call_that_starts_after_the_probe_needs_its_own_slot() -> None:
    """The task was started by the probe, but its call was not made inside it."""
    breaker, _ = half_open()
    may_call = asyncio.Event()

    async def later() -> None:
        await may_call.wait()
        await breaker.call(asyncio.sleep, 0)

    async with breaker:
        task = asyncio.create_task(later())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(breaker)
        may_call.set()
        with pytest.raises(CircuitOpenError):
            await task


async def test_a_call_inside_a_probe_that_has_hung_is_refused() -> None:
    """The circuit is open by then, also for what the probe still calls."""
    breaker, clock = half_open(probe_timeout=100.0)
    async with breaker:
        clock.advance(100.0)
        with pytest.raises(CircuitOpenError):
            await breaker.call(asyncio.sleep, 0)
    assert breaker.is_open
    assert breaker.in_flight == 0


async def test_after_a_hung_probe_has_ended_its_outcome_is_late() -> None:
    """While the probe ran, its own failure stood for both."""
    breaker, clock = half_open(probe_timeout=100.0)
    failures = breaker.total_failures
    first, second = Background(breaker), Background(breaker)
    async with breaker:
        await first.start()
        await second.start()
        clock.advance(100.0)
        assert breaker.is_open
        await first.end(DownError())
        assert breaker.total_failures == failures + 1
    await second.end(DownError())
    assert breaker.total_failures == failures + 2
    assert breaker.in_flight == 0


async def test_only_the_probe_reports_its_end_to_a_fleet() -> None:
    """Only the probe passed the gate, so only its end is reported there."""
    breaker, _ = half_open(success_threshold=9)
    gate = FakeGate()
    breaker.machine.gate = gate
    gate.available = 1
    for error in (None, asyncio.CancelledError()):
        gate.available, gate.outcomes = 1, []
        background = Background(breaker)
        await breaker.protected(background.start)()
        await background.end(error)
        assert gate.outcomes == [True]
