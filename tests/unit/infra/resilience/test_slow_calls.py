"""`slow_call_duration`: a call that runs longer counts as failed at its deadline."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from example_service.infra.resilience import (
    CallFailed,
    CallSucceeded,
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
    StateChanged,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import (
    FORMS,
    DownError,
    RunningCall,
    fail,
    half_opened,
    make_breaker,
    opened,
    succeed,
)

ENDS: dict[str, Callable[[RunningCall], None]] = {
    "success": RunningCall.succeed,
    "failure": RunningCall.fail,
    "cancellation": lambda call: call.end_with(asyncio.CancelledError()),
    "abandoning": lambda call: call.end_with(GeneratorExit()),
}

# Every way to look at a breaker.
LOOKS: dict[str, Callable[[CircuitBreaker, CircuitBreakerRegistry], object]] = {
    "state": lambda breaker, _: breaker.state,
    "is_open": lambda breaker, _: breaker.is_open,
    "total_failures": lambda breaker, _: breaker.total_failures,
    "total_successes": lambda breaker, _: breaker.total_successes,
    "get_metrics": lambda breaker, _: breaker.get_metrics(),
    "scrape": lambda _, registry: registry.snapshots(),
    "get_all_metrics": lambda _, registry: registry.get_all_metrics(),
}


def test_calls_that_hang_open_the_circuit_before_they_end() -> None:
    """The circuit does not wait for the first of them to end."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)
    hanging = [RunningCall(breaker) for _ in range(20)]
    clock.advance(1.0)
    assert breaker.is_closed
    clock.advance(1.0)
    assert breaker.is_open
    assert breaker.total_failures == 20
    assert breaker.in_flight == 20
    assert breaker.get_metrics()["reason"] == "5 failures in a row; last failures: overdue call"
    for call in hanging:
        call.succeed()
    assert breaker.in_flight == 0
    assert breaker.total_failures == 20
    assert breaker.total_successes == 0


@pytest.mark.parametrize("look", LOOKS)
def test_every_read_processes_what_is_overdue(look: str) -> None:
    """The totals and the state are those of the deadline, however late the first look is."""
    clock, registry, recorder = FakeClock(now=0.0), CircuitBreakerRegistry(), RecordingListener()
    breaker = make_breaker(
        clock, slow_call_duration=2.0, failure_threshold=1, registry=registry, listeners=[recorder]
    )
    RunningCall(breaker)
    clock.advance(12.0)
    LOOKS[look](breaker, registry)
    assert [type(event) for event in recorder.events] == [CallFailed, StateChanged]
    assert breaker.get_metrics()["retry_after"] == 50.0
    assert breaker.total_failures == 1


@pytest.mark.parametrize("how", ENDS)
class TestEnd:
    """A call is counted once, however it ends."""

    def test_a_call_that_ends_in_time_counts_by_its_outcome(self, how: str) -> None:
        """The rule does not affect calls that end before the limit."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=2.0)
        call = RunningCall(breaker)
        clock.advance(1.0)
        ENDS[how](call)
        clock.advance(100.0)
        assert breaker.total_failures == (how == "failure")
        assert breaker.total_successes == (how == "success")
        assert breaker.in_flight == 0

    def test_an_end_after_it_counts_as_one_failure(self, how: str) -> None:
        """It counts even without a look at the breaker in between."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=2.0)
        call = RunningCall(breaker)
        clock.advance(2.0)
        ENDS[how](call)
        assert breaker.total_failures == 1
        assert breaker.total_successes == 0
        assert breaker.get_metrics()["failure_count"] == 1
        assert breaker.in_flight == 0

    def test_an_end_after_it_was_counted_changes_nothing(self, how: str) -> None:
        """The look has already counted it."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=2.0)
        call = RunningCall(breaker)
        clock.advance(2.0)
        before = breaker.get_metrics()
        ENDS[how](call)
        after = breaker.get_metrics()
        assert (before.pop("in_flight"), after.pop("in_flight")) == (1, 0)
        assert after == before


@pytest.mark.parametrize("form", FORMS)
async def test_an_outer_timeout_after_the_duration_does_not_hide_the_failure(form: str) -> None:
    """A hanging dependency opens the circuit even if every caller gives up earlier."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0, failure_threshold=3)

    async def hanging() -> None:
        clock.advance(2.0)
        await asyncio.Event().wait()

    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await FORMS[form](breaker, hanging)
    assert breaker.is_open
    assert breaker.total_failures == 3
    assert breaker.in_flight == 0


def test_a_refused_call_also_processes_what_is_due() -> None:
    """The call after the deadline finds the circuit open."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0, failure_threshold=1)
    RunningCall(breaker)
    clock.advance(3.0)
    with pytest.raises(CircuitOpenError) as caught:
        succeed(breaker)
    assert caught.value.retry_after == 59.0


def test_each_call_is_reported_with_its_duration() -> None:
    """An overdue call is reported as of its deadline, before later events."""
    clock, recorder = FakeClock(), RecordingListener()
    breaker = make_breaker(clock, slow_call_duration=5.0, listeners=[recorder])
    hanging, quick, failing = (RunningCall(breaker) for _ in range(3))
    clock.advance(2.0)
    quick.succeed()
    clock.advance(1.0)
    failing.fail()
    clock.advance(4.0)
    late = RunningCall(breaker)
    clock.advance(1.0)
    late.succeed()
    hanging.fail()
    assert recorder.events == [
        CallSucceeded("search", 2.0),
        CallFailed("search", "DownError", 3.0),
        CallFailed("search", None, 5.0),
        CallSucceeded("search", 1.0),
    ]


def test_a_success_after_an_overdue_call_resets_the_row() -> None:
    """A success after the deadline follows the overdue call, and resets failures in a row."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=5.0, failure_threshold=2)
    RunningCall(breaker)
    clock.advance(4.0)
    second = RunningCall(breaker)
    clock.advance(2.0)
    second.succeed()
    assert breaker.get_metrics()["failure_count"] == 0
    fail(breaker)
    assert breaker.is_closed
    assert breaker.total_failures == 2


def test_calls_are_timed_again_after_a_recovery() -> None:
    """A call that hangs in the next period counts at its deadline, as in the first."""
    clock = FakeClock()
    breaker = half_opened(clock, success_threshold=1, slow_call_duration=2.0)
    succeed(breaker)
    failures = breaker.total_failures
    RunningCall(breaker)
    clock.advance(2.0)
    assert breaker.total_failures == failures + 1


def test_a_late_read_processes_deadline_and_wait_in_order() -> None:
    """The circuit opened at the deadline, and its wait has ended long ago."""
    clock, recorder = FakeClock(), RecordingListener()
    breaker = make_breaker(clock, slow_call_duration=5.0, failure_threshold=1, listeners=[recorder])
    RunningCall(breaker)
    clock.advance(500.0)
    assert breaker.is_half_open
    assert [getattr(event, "to_state", "failed") for event in recorder.events] == [
        "failed",
        "open",
        "half_open",
    ]


@pytest.mark.parametrize(("slow", "probe_timeout"), [(2.0, 9.0), (9.0, 2.0)])
def test_a_probe_is_overdue_after_the_shorter_of_both(slow: float, probe_timeout: float) -> None:
    """The circuit opens again at whichever limit comes first."""
    clock = FakeClock()
    breaker = half_opened(clock, slow_call_duration=slow, probe_timeout=probe_timeout)
    RunningCall(breaker)
    clock.advance(1.0)
    assert breaker.is_half_open
    clock.advance(1.0)
    assert breaker.is_open
    assert breaker.get_metrics()["retry_after"] == 120.0
    assert breaker.total_failures == 6


def test_a_probe_of_a_cycle_that_is_over_is_still_slow() -> None:
    """It no longer affects the state, but counts in the totals like any slow call."""
    clock = FakeClock()
    breaker = half_opened(clock, slow_call_duration=10.0)
    lingering, failing = RunningCall(breaker), RunningCall(breaker)
    failing.fail()
    clock.advance(10.0)
    assert breaker.total_failures == 7
    lingering.succeed()
    assert breaker.total_failures == 7
    assert breaker.total_successes == 0


def test_events_processed_together_come_in_the_order_in_which_they_were_due() -> None:
    """The wait ended before a call from before the outage became overdue."""
    clock, recorder = FakeClock(), RecordingListener()
    breaker = make_breaker(
        clock,
        slow_call_duration=15.0,
        failure_threshold=1,
        recovery_timeout=10.0,
        listeners=[recorder],
    )
    RunningCall(breaker)
    fail(breaker)
    recorder.events.clear()
    clock.advance(20.0)
    assert breaker.is_half_open
    assert [type(event) for event in recorder.events] == [StateChanged, CallFailed]


async def test_a_stream_that_takes_too_long_is_slow() -> None:
    """Its duration lasts from the request for the first item to its end."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)

    @breaker.protected
    def stream() -> Any:
        yield 1
        clock.advance(2.0)
        yield 2

    assert list(stream()) == [1, 2]
    assert breaker.total_failures == 1
    assert breaker.total_successes == 0


async def test_a_block_entered_by_name_is_counted_once() -> None:
    """This applies even if the circuit opens before the block ends."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=15.0, failure_threshold=1)
    await breaker.__aenter__()
    fail(breaker)
    error = DownError()
    await breaker.__aexit__(DownError, error, None)
    clock.advance(20.0)
    assert breaker.total_failures == 2
    assert breaker.in_flight == 0


def test_the_memory_of_calls_that_ended_is_given_back() -> None:
    """Only running calls are kept."""
    breaker = make_breaker(slow_call_duration=10.0)
    succeed(breaker, 1000)
    fail(breaker, 4)
    assert not breaker.machine.running


class ChangedWhileRead(dict[Any, Any]):
    """Running calls to which another thread adds one while this thread first looks."""

    races = 1

    def __iter__(self) -> Any:
        if self.races:
            self.races -= 1
            raise RuntimeError("dictionary changed size during iteration")
        return super().__iter__()


class EndedWhileRead(ChangedWhileRead):
    """Running calls of which another thread also ends the one that this thread has found."""

    def pop(self, *arguments: Any) -> Any:
        """Find it gone."""
        self.clear()
        return super().pop(*arguments)


def test_a_call_is_found_overdue_while_others_start_and_end() -> None:
    """This thread looks again at once."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)
    RunningCall(breaker)
    breaker.machine.running = ChangedWhileRead(breaker.machine.running or {})
    clock.advance(2.0)
    breaker.machine.advance(clock())
    assert breaker.machine.totals().failures == 1


def test_a_call_that_ends_while_it_is_found_overdue_is_not_counted() -> None:
    """Another thread has ended it in time."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)
    RunningCall(breaker)
    breaker.machine.running = EndedWhileRead(breaker.machine.running or {})
    clock.advance(2.0)
    assert breaker.total_failures == 0


@pytest.mark.parametrize("state", [CircuitState.OPEN, CircuitState.CLOSED])
def test_slow_calls_are_found_after_other_processes_were_followed(state: CircuitState) -> None:
    """Opening and closing with them leaves the deadlines of calls as they are."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0, failure_threshold=99)
    call = RunningCall(breaker)
    breaker.follow(state, "another process", 60.0)
    clock.advance(2.0)
    assert breaker.total_failures == 1
    call.succeed()
    assert breaker.total_successes == 0


def test_an_opening_in_the_past_ends_a_wait_beside_slow_calls() -> None:
    """The moments of both rules are kept."""
    clock = FakeClock()
    breaker = opened(clock, slow_call_duration=2.0, recovery_timeout=60.0)
    breaker._last_failure_time = datetime.now(UTC) - timedelta(seconds=20)
    assert breaker.is_open
    clock.advance(41.0)
    assert breaker.is_half_open
