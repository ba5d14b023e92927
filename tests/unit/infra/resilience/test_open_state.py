"""OPEN: no call is made until the wait is over."""

import contextlib

import pytest

from example_service.infra.resilience import Backoff, CircuitOpenError, CircuitState
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import (
    FORMS,
    PLAIN_FORMS,
    DownError,
    RunningCall,
    fail,
    half_opened,
    make_breaker,
    opened,
    succeed,
)


@pytest.mark.parametrize("form", FORMS)
async def test_no_coroutine_runs(form: str) -> None:
    """A refused coroutine function is never called."""

    async def work() -> None:
        pytest.fail("ran while open")

    breaker = opened(FakeClock())
    with pytest.raises(CircuitOpenError):
        await FORMS[form](breaker, work)
    assert breaker.total_rejections == 1
    assert breaker.in_flight == 0


@pytest.mark.parametrize("form", PLAIN_FORMS)
def test_no_plain_function_runs(form: str) -> None:
    """A refused plain function is never called either."""
    breaker = opened(FakeClock())
    with pytest.raises(CircuitOpenError):
        PLAIN_FORMS[form](breaker, lambda: pytest.fail("ran while open"))
    assert breaker.total_rejections == 1


def test_the_refusal_says_when_to_come_back() -> None:
    """The error gives the seconds until a probe may be admitted."""
    clock = FakeClock()
    breaker = opened(clock, recovery_timeout=60.0)
    for passed, left in ((0.0, 60.0), (0.5, 59.5), (59.0, 0.5)):
        clock.advance(passed)
        with pytest.raises(CircuitOpenError) as caught:
            breaker.call_sync(str)
        assert caught.value.retry_after == left
        assert caught.value.state is CircuitState.OPEN
        assert caught.value.breaker_name == "search"
        assert caught.value.reason == "5 failures in a row; last failures: DownError"
        assert breaker.get_metrics()["retry_after"] == left


def test_the_reason_covers_this_outage_only() -> None:
    """Failures from before the last recovery are not mentioned."""
    clock = FakeClock()
    breaker = half_opened(clock, success_threshold=1, expected_exception=Exception)
    succeed(breaker)
    for _ in range(5):
        with contextlib.suppress(TimeoutError), breaker:
            raise TimeoutError
    assert breaker.get_metrics()["reason"] == "5 failures in a row; last failures: TimeoutError"


def test_the_reason_of_a_circuit_forced_open_is_that_of_the_operator() -> None:
    """Earlier failures did not open it, so they are not the reason after the mode either."""
    clock = FakeClock()
    breaker = make_breaker(clock)
    fail(breaker)
    breaker.force_open("stocktaking", 5.0)
    clock.advance(5.0)
    assert breaker.is_half_open
    assert breaker.get_metrics()["reason"] == "forced open by hand: stocktaking"


def test_the_wait_ends_exactly_on_time() -> None:
    """The circuit becomes half-open exactly at the announced time."""
    clock = FakeClock()
    breaker = opened(clock, recovery_timeout=60.0)
    clock.advance(59.0)
    assert breaker.is_open
    clock.advance(1.0)
    assert breaker.is_half_open


def test_several_reads_after_the_wait_cause_one_transition() -> None:
    """However often it is read, the transition is reported once, and no permit is used."""
    clock, recorder = FakeClock(), RecordingListener()
    breaker = opened(clock, listeners=[recorder], half_open_max_calls=1)
    recorder.events.clear()
    clock.advance(1e6)
    for _ in range(3):
        assert breaker.state is CircuitState.HALF_OPEN
        assert breaker.get_metrics()["state"] == "half_open"
        assert breaker.is_half_open
        assert breaker.total_failures == 5
    assert len(recorder.events) == 1
    RunningCall(breaker).succeed()


def test_reading_the_state_during_the_wait_changes_nothing() -> None:
    """Reading changes nothing unless something is due."""
    recorder = RecordingListener()
    breaker = opened(FakeClock(), listeners=[recorder])
    recorder.events.clear()
    assert breaker.is_open
    assert not breaker.is_closed
    assert not breaker.is_half_open
    breaker.get_metrics()
    assert recorder.events == []


@pytest.mark.parametrize("end", ["success", "failure"])
def test_late_outcomes_change_neither_state_nor_opening_time(end: str) -> None:
    """Calls from before the outage count only in the totals."""
    clock = FakeClock()
    breaker = make_breaker(clock, failure_threshold=1, recovery_timeout=60.0)
    late, last = RunningCall(breaker), RunningCall(breaker)
    last.fail()
    clock.advance(59.0)
    if end == "success":
        late.succeed()
    else:
        late.fail()
    metrics = breaker.get_metrics()
    assert metrics["state"] == "open"
    assert metrics["retry_after"] == 1.0
    assert metrics["total_successes" if end == "success" else "total_failures"] >= 1
    assert metrics["opened_count"] == 1
    assert metrics["failure_count"] == 1


def test_simultaneous_failures_open_once() -> None:
    """When a hundred calls fail together, failures beyond the threshold change nothing."""
    clock, recorder = FakeClock(), RecordingListener()
    breaker = make_breaker(clock, failure_threshold=5, listeners=[recorder])
    calls = [RunningCall(breaker) for _ in range(100)]
    for call in calls:
        call.fail()
    assert breaker.get_metrics()["opened_count"] == 1
    assert breaker.total_failures == 100
    clock.advance(60.0)
    assert breaker.is_half_open


class TestWaits:
    """How long the circuit stays open."""

    def test_they_grow_with_each_failed_recovery_up_to_the_limit(self) -> None:
        """By default, a wait is twice as long as the last, and at most five times the first."""
        clock = FakeClock()
        breaker = opened(clock, recovery_timeout=60.0)
        waits = []
        for _ in range(6):
            waits.append(breaker.get_metrics()["retry_after"])
            clock.advance(waits[-1])
            RunningCall(breaker).fail()
        assert waits == [60.0, 120.0, 240.0, 300.0, 300.0, 300.0]

    def test_a_full_recovery_forgets_the_growth(self) -> None:
        """After a recovery, the next outage starts with the shortest wait."""
        clock = FakeClock()
        breaker = half_opened(clock, failure_threshold=1, success_threshold=1)
        RunningCall(breaker).fail()
        clock.advance(120.0)
        RunningCall(breaker).succeed()
        assert breaker.is_closed
        RunningCall(breaker).fail()
        assert breaker.get_metrics()["retry_after"] == 60.0

    def test_the_announced_wait_is_the_one_used(self) -> None:
        """Even with jitter, a caller that comes back at the announced time becomes a probe."""
        clock = FakeClock(now=0.0)
        breaker = opened(clock, backoff=Backoff(jitter=1.0, seed=7))
        for _ in range(20):
            with pytest.raises(CircuitOpenError) as caught:
                breaker.call_sync(str)
            wait = caught.value.retry_after
            assert wait is not None
            clock.advance(wait)
            RunningCall(breaker).fail()

    def test_thousands_of_failed_recoveries_stay_finite(self) -> None:
        """The power of the multiplier may overflow; the wait may not."""
        clock = FakeClock()
        breaker = opened(clock, backoff=Backoff(multiplier=10.0), half_open_max_calls=1)
        for _ in range(3000):
            clock.advance(300.0)
            RunningCall(breaker).fail()
        assert breaker.get_metrics()["retry_after"] == 300.0
        assert breaker.get_metrics()["opened_count"] == 3001

    def test_the_wall_clock_plays_no_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Changing the system clock neither shortens nor lengthens a wait."""
        clock = FakeClock()
        breaker = opened(clock)
        monkeypatch.setattr("time.time", lambda: 0.0)
        assert breaker.get_metrics()["retry_after"] == 60.0
        monkeypatch.setattr("time.time", lambda: 1e12)
        assert breaker.is_open
        clock.advance(60.0)
        assert breaker.is_half_open


def test_the_whole_story_of_an_outage() -> None:
    """Events report closed, open, half-open, open for longer, half-open, closed in order."""
    clock, recorder = FakeClock(), RecordingListener()
    breaker = opened(clock, failure_threshold=2, listeners=[recorder])
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(str)
    clock.advance(60.0)
    with pytest.raises(DownError), breaker:
        raise DownError
    clock.advance(120.0)
    RunningCall(breaker).succeed()
    RunningCall(breaker).succeed()
    story = []
    for event in recorder.events:
        kind = type(event).__name__
        to = getattr(event, "to_state", None)
        story.append(f"{kind} {to}" if to else kind)
    assert story == [
        "CallFailed",
        "CallFailed",
        "StateChanged open",
        "CallRejected",
        "StateChanged half_open",
        "CallFailed",
        "StateChanged open",
        "StateChanged half_open",
        "CallSucceeded",
        "CallSucceeded",
        "StateChanged closed",
    ]
