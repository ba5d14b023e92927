"""A breaker that is entered again by the thread that is just deciding, and after a fork."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError, FailureRate, fork
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    DownError,
    RunningCall,
    counts,
    fail,
    half_opened,
    make_breaker,
    opened,
    succeed,
)


def interrupt(work: Callable[[], None], number: int, act: Callable[[], None]) -> bool:
    """Run `work`, and run `act` at its n-th line inside the package, as a finalizer could.

    Returns:
        Whether `work` has that many lines.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if "infra/resilience" not in frame.f_code.co_filename.replace("\\", "/"):
            return None
        if event == "line":
            lines += 1
            if lines == number:
                sys.settrace(None)
                act()
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(previous)
    return lines >= number


def call(breaker: CircuitBreaker, error: type[Exception] | None = None) -> None:
    """Make one guarded call."""
    with suppress(DownError, CircuitOpenError), breaker:
        if error is not None:
            raise error


PARAMETERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "slow calls": {"slow_call_duration": 5.0},
    "failure rate": {"failure_rate": FailureRate(threshold=1.0, window_seconds=30.0)},
}


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("error", [None, DownError])
@pytest.mark.parametrize("start", ["closed", "about to open", "open", "half-open"])
def test_a_call_that_enters_at_any_line_of_another_loses_nothing(
    start: str, error: type[Exception] | None, parameters: str
) -> None:
    """There is no error, nothing stays in flight, and every call is counted or refused."""
    number = 0
    while True:
        number += 1
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=3, **PARAMETERS[parameters])
        if start == "about to open":
            fail(breaker, 2)
        elif start != "closed":
            fail(breaker, 3)
            clock.advance(breaker.recovery_timeout if start == "half-open" else 0.0)
        before = sum(_counts(breaker))
        there_was = interrupt(lambda: call(breaker, error), number, lambda: call(breaker))  # noqa: B023
        assert breaker.in_flight == 0, number
        counted = sum(_counts(breaker)) - before
        # A call that starts inside a probe is part of it.
        assert counted == 1 + there_was or (counted == 1 and start == "half-open"), number
        if not there_was:
            break
    assert number > 2


def _counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    return breaker.total_failures, breaker.total_successes, breaker.total_rejections


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_has_locks_of_its_own_and_no_call_in_flight() -> None:
    """This applies even if another thread of the parent held the lock during the fork."""
    breaker = make_breaker(failure_threshold=3)
    opened_one = opened(FakeClock())
    slow_one, probed_one = make_breaker(slow_call_duration=5.0), half_opened(FakeClock())
    for each in (breaker, slow_one, probed_one):
        each.acquire()
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with breaker.mutex, opened_one.mutex:
            is_held.set()
            may_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            fail(breaker, 3)
            facts = (breaker.is_open, opened_one.is_open)
            breakers = (breaker, opened_one, slow_one, probed_one)
            in_flight = [breaker.in_flight for breaker in breakers]
            status = 0 if facts == (True, True) and in_flight == [0, 0, 0, 0] else 2
        os._exit(status)
    may_go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert breaker.in_flight == 1


@pytest.fixture
def fork_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets every breaker of this process believe that the process has just been forked."""
    return lambda: monkeypatch.setattr(fork, "generation", fork.generation + 1)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_only_calls_of_the_child_are_in_flight_there(
    parameters: str, fork_here: Callable[[], None]
) -> None:
    """The totals of the parent stay."""
    breaker = make_breaker(**PARAMETERS[parameters])
    succeed(breaker, 2)
    fail(breaker)
    RunningCall(breaker)
    fork_here()
    assert counts(breaker) == (1, 2, 0)
    running = RunningCall(breaker)
    assert counts(breaker) == (1, 2, 1)
    running.succeed()
    assert counts(breaker) == (1, 3, 0)


def test_calls_of_the_parent_decide_nothing_in_the_child(fork_here: Callable[[], None]) -> None:
    """They use no probe slot, do not become overdue, and their outcomes are not counted."""
    clock = FakeClock()
    breaker = make_breaker(
        clock, success_threshold=1, half_open_max_calls=1, slow_call_duration=100.0
    )
    late = RunningCall(breaker)
    fail(breaker, 5)
    clock.advance(60.0)
    probe = RunningCall(breaker)
    fork_here()
    clock.advance(100.0)
    for call in (late, probe):
        call.fail()
        assert counts(breaker) == (5, 0, 0)
    assert breaker.is_half_open
    succeed(breaker)
    assert breaker.is_closed


def during_a_decision(breaker: CircuitBreaker, act: Callable[[], object]) -> None:
    """Run `act` in the middle of a decision, as a finalizer may run there."""
    breaker._decide(lambda _: act())


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_a_call_within_a_decision_of_a_closed_circuit_runs_and_counts(parameters: str) -> None:
    """Its outcome waits for the end of the decision."""
    breaker = make_breaker(FakeClock(), failure_threshold=2, **PARAMETERS[parameters])
    fail(breaker)
    during_a_decision(breaker, lambda: call(breaker, DownError))
    assert breaker.is_open
    assert _counts(breaker) == (2, 0, 0)
    assert breaker.in_flight == 0


def test_a_call_within_a_decision_of_a_disabled_circuit_runs_and_counts() -> None:
    """Every call does, there."""
    breaker = make_breaker()
    breaker.disable("for the test")
    running = RunningCall(breaker)
    during_a_decision(breaker, lambda: call(breaker, DownError))
    assert _counts(breaker) == (1, 0, 0)
    assert breaker.in_flight == 1
    running.succeed()
    assert breaker.in_flight == 0


@pytest.mark.parametrize("state", ["open", "half-open"])
def test_a_call_within_a_decision_of_another_circuit_is_refused(state: str) -> None:
    """It is counted as refused, and takes no probe slot."""
    breaker = half_opened(FakeClock()) if state == "half-open" else opened(FakeClock())
    for refused in (1, 2):
        during_a_decision(breaker, lambda: call(breaker))
        assert _counts(breaker) == (5, 0, refused)
    assert breaker.in_flight == 0


def test_a_mode_set_within_a_decision_applies_after_it() -> None:
    """The last word is that of the operator."""
    breaker = make_breaker()
    during_a_decision(breaker, lambda: breaker.force_open("by a signal handler"))
    assert breaker.is_open
    assert breaker.get_metrics()["mode"]["reason"] == "by a signal handler"
