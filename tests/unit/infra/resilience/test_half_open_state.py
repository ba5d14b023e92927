"""HALF_OPEN: a few probes decide, and none can block the circuit forever."""

import asyncio
from contextvars import Context

import pytest

from example_service.infra.resilience import CircuitOpenError, CircuitState, StateChanged
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import (
    FORMS,
    BadRequestError,
    RunningCall,
    fail,
    half_opened,
    opened,
    succeed,
)


class TestLimit:
    """At most `half_open_max_calls` probes run at a time."""

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    def test_it_is_exact_and_the_excess_is_refused_at_once(self, limit: int) -> None:
        """The refusal says that all probe slots are taken."""
        breaker = half_opened(FakeClock(), half_open_max_calls=limit)
        probes = [RunningCall(breaker) for _ in range(limit)]
        for _ in range(3):
            with pytest.raises(CircuitOpenError, match="half-open call limit reached") as caught:
                RunningCall(breaker)
            assert caught.value.retry_after == 0.0
            assert caught.value.state is CircuitState.HALF_OPEN
        assert breaker.in_flight == limit
        assert breaker.total_rejections == 3
        probes[0].end_with(BadRequestError())
        RunningCall(breaker)

    @pytest.mark.parametrize("form", FORMS)
    async def test_of_fifty_callers_at_recovery_only_so_many_reach_the_dependency(
        self, form: str
    ) -> None:
        """This applies to every form of call, even in a single step of the event loop."""
        clock = FakeClock()
        breaker = opened(clock, half_open_max_calls=3)
        clock.advance(60.0)
        at_once = most = 0
        go_on = asyncio.Event()

        async def work() -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await go_on.wait()
            at_once -= 1

        calls = [asyncio.ensure_future(FORMS[form](breaker, work)) for _ in range(50)]
        await asyncio.sleep(0)
        go_on.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert most == 3
        assert sum(isinstance(outcome, CircuitOpenError) for outcome in outcomes) == 47
        assert breaker.is_closed

    async def test_a_success_threshold_above_the_limit_is_reached_in_turns(self) -> None:
        """The limit applies to simultaneous calls, not to their total number."""
        breaker = half_opened(FakeClock(), half_open_max_calls=2, success_threshold=5)
        for done in range(5):
            assert breaker.is_half_open
            assert breaker.get_metrics()["success_count"] == done
            succeed(breaker)
        assert breaker.is_closed

    def test_a_call_inside_a_probe_takes_no_second_slot(self) -> None:
        """Another caller can still run the second probe, but not a third."""
        breaker = half_opened(FakeClock(), half_open_max_calls=2)
        with breaker:
            RunningCall(breaker)
            Context().run(RunningCall, breaker)
            with pytest.raises(CircuitOpenError):
                Context().run(RunningCall, breaker)

    def test_probes_of_the_last_cycle_take_no_slot_in_this_one(self) -> None:
        """When they end, they do not free a slot either."""
        clock = FakeClock()
        breaker = half_opened(clock, half_open_max_calls=2)
        old, failing = RunningCall(breaker), RunningCall(breaker)
        failing.fail()
        clock.advance(120.0)
        RunningCall(breaker)
        RunningCall(breaker)
        old.succeed()
        with pytest.raises(CircuitOpenError):
            RunningCall(breaker)
        assert breaker.get_metrics()["success_count"] == 0


class TestDecision:
    """How probes decide."""

    def test_enough_successes_close(self) -> None:
        """The event has the number of calls refused since the opening."""
        clock, recorder = FakeClock(), RecordingListener()
        breaker = opened(clock, success_threshold=2, listeners=[recorder])
        for _ in range(4):
            with pytest.raises(CircuitOpenError):
                succeed(breaker)
        clock.advance(60.0)
        succeed(breaker, 2)
        assert breaker.is_closed
        last = recorder.events[-1]
        assert isinstance(last, StateChanged)
        assert (last.to_state, last.rejections, last.failure_count) == ("closed", 4, 0)
        assert last.wait_seconds is None
        assert last.reason == "2 probes succeeded"

    def test_any_failure_reopens_at_once(self) -> None:
        """An earlier success does not prevent this."""
        breaker = half_opened(FakeClock(), success_threshold=3)
        succeed(breaker, 2)
        fail(breaker)
        assert breaker.is_open
        assert breaker.get_metrics()["reason"] == "a probe failed; last failures: DownError"

    def test_successes_are_counted_from_zero_in_each_cycle(self) -> None:
        """Successes from before a failed recovery no longer count."""
        clock = FakeClock()
        breaker = half_opened(clock, success_threshold=2)
        succeed(breaker)
        fail(breaker)
        clock.advance(120.0)
        succeed(breaker)
        assert breaker.is_half_open
        succeed(breaker)
        assert breaker.is_closed

    @pytest.mark.parametrize("ends_well", [True, False])
    def test_a_call_from_before_the_opening_decides_nothing(self, ends_well: bool) -> None:
        """A late success or failure does not count as that of a probe."""
        clock = FakeClock()
        breaker = half_opened(clock, failure_threshold=1, success_threshold=1)
        succeed(breaker)
        late, failing = RunningCall(breaker), RunningCall(breaker)
        failing.fail()
        clock.advance(60.0)
        assert breaker.is_half_open
        if ends_well:
            late.succeed()
        else:
            late.fail()
        assert breaker.is_half_open
        assert breaker.total_failures == (2 if ends_well else 3)
        assert breaker.total_successes == (2 if ends_well else 1)

    def test_a_neutral_probe_makes_room_for_another(self) -> None:
        """It is neutral, and frees its slot."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1)
        for _ in range(10):
            RunningCall(breaker).end_with(BadRequestError())
        assert breaker.is_half_open
        assert breaker.get_metrics()["success_count"] == 0
        assert breaker.in_flight == 0


class TestHangingProbe:
    """A probe that hangs counts as one failure at its deadline."""

    def test_a_hung_probe_does_not_keep_a_healthy_dependency_out(self) -> None:
        """A probe that never ends delays recovery by one wait only."""
        clock = FakeClock()
        breaker = half_opened(clock, half_open_max_calls=1, success_threshold=1)
        hung = RunningCall(breaker)
        refused = 0
        for _ in range(6 * 24 * 60):
            clock.advance(60.0)
            try:
                succeed(breaker)
            except CircuitOpenError:
                refused += 1
        assert breaker.is_closed
        assert refused == 2
        hung.fail()
        assert breaker.is_closed
        assert breaker.get_metrics()["failure_count"] == 0

    def test_it_reopens_as_of_its_deadline_with_backoff(self) -> None:
        """The wait starts at the deadline, not when the deadline is noticed."""
        clock, recorder = FakeClock(), RecordingListener()
        breaker = half_opened(clock, probe_timeout=5.0, recovery_timeout=60.0, listeners=[recorder])
        hung = RunningCall(breaker)
        clock.advance(45.0)
        recorder.events.clear()
        metrics = breaker.get_metrics()
        assert metrics["state"] == "open"
        assert metrics["retry_after"] == 80.0
        assert "a probe did not end within 5 seconds" in metrics["reason"]
        assert [type(event).__name__ for event in recorder.events] == ["CallFailed", "StateChanged"]
        assert breaker.total_failures == 6
        hung.fail()
        assert breaker.total_failures == 6
        assert breaker.in_flight == 0

    def test_it_may_be_half_open_again_when_it_is_read(self) -> None:
        """The deadline and the wait may both have passed; the first look applies both."""
        clock = FakeClock()
        breaker = half_opened(clock, probe_timeout=5.0)
        RunningCall(breaker)
        clock.advance(5.0 + 120.0)
        assert breaker.is_half_open
        assert breaker.get_metrics()["opened_count"] == 2

    def test_what_a_hung_probe_calls_in_the_next_cycle_needs_slots_of_its_own(self) -> None:
        """The slot of the probe belonged to the cycle that its deadline has ended."""
        clock = FakeClock()
        breaker = half_opened(clock, probe_timeout=5.0, half_open_max_calls=1)
        with breaker:
            clock.advance(5.0 + 120.0)
            RunningCall(breaker)
            with pytest.raises(CircuitOpenError):
                RunningCall(breaker)
        assert breaker.in_flight == 1

    def test_a_success_of_one_probe_does_not_save_a_hung_one(self) -> None:
        """Each probe has its own deadline."""
        clock = FakeClock()
        breaker = half_opened(clock, probe_timeout=5.0, success_threshold=2)
        RunningCall(breaker)
        clock.advance(4.0)
        RunningCall(breaker).succeed()
        clock.advance(1.0)
        assert breaker.is_open

    def test_a_probe_that_ends_just_in_time_counts_as_it_ended(self) -> None:
        """A call that ends just before its deadline is not overdue."""
        clock = FakeClock()
        breaker = half_opened(clock, probe_timeout=5.0, success_threshold=1)
        probe = RunningCall(breaker)
        clock.advance(4.0)
        probe.succeed()
        assert breaker.is_closed

    def test_the_end_of_an_overdue_probe_also_processes_what_is_due(self) -> None:
        """Without an earlier look, its own success still comes too late to close the circuit."""
        clock = FakeClock()
        breaker = half_opened(clock, probe_timeout=5.0, success_threshold=1)
        probe = RunningCall(breaker)
        clock.advance(5.0)
        probe.succeed()
        assert breaker.is_open
        assert breaker.total_successes == 0
        assert breaker.total_failures == 6

    def test_an_overdue_probe_that_is_cancelled_stays_counted_once(self) -> None:
        """An outer timeout after the deadline has no further effect."""
        clock = FakeClock()
        breaker = half_opened(clock, probe_timeout=5.0)
        probe = RunningCall(breaker)
        clock.advance(6.0)
        probe.end_with(asyncio.CancelledError())
        assert breaker.is_open
        assert breaker.total_failures == 6
        assert breaker.in_flight == 0

    def test_without_a_limit_of_its_own_it_has_the_recovery_timeout(self) -> None:
        """A probe always has a time limit."""
        clock = FakeClock()
        breaker = half_opened(clock, recovery_timeout=60.0)
        assert breaker.probe_timeout == 60.0
        RunningCall(breaker)
        clock.advance(59.0)
        assert breaker.is_half_open
        clock.advance(1.0)
        assert breaker.is_open


async def test_callers_beside_a_probe_are_refused() -> None:
    """Only calls inside the probe are part of it."""
    breaker = half_opened(FakeClock(), half_open_max_calls=1)
    is_probing, may_end = asyncio.Event(), asyncio.Event()

    async def probe() -> None:
        async with breaker:
            is_probing.set()
            await may_end.wait()

    task = asyncio.create_task(probe())
    await is_probing.wait()
    with pytest.raises(CircuitOpenError):
        await breaker.call(asyncio.sleep, 0)
    may_end.set()
    await task


async def test_calls_that_refuse_each_other_recover() -> None:
    """Two concurrent callers with the same breaker do not fail each other's probes."""
    clock = FakeClock()
    breaker = half_opened(clock)

    @breaker.protected
    async def low() -> None:
        await asyncio.sleep(0)

    @breaker.protected
    async def high() -> None:
        await low()

    for _ in range(4):
        await asyncio.gather(high(), high(), return_exceptions=True)
        clock.advance(1000.0)
    assert breaker.is_closed
