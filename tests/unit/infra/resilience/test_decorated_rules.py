"""The decorator with rules that need the clock, the result or a listener."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest

from example_service.infra.resilience import CallSucceeded, CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import DownError, make_breaker

Step = Callable[[], Any]
Caller = Callable[[CircuitBreaker, Step], Any]


def _function(breaker: CircuitBreaker, step: Step) -> Any:
    """Call a plain function that performs the step."""
    return breaker.protected(step)()


def _coroutine(breaker: CircuitBreaker, step: Step) -> Any:
    """Await a coroutine function that performs the step."""

    @breaker.protected
    async def work() -> Any:
        return step()

    return asyncio.run(work())


FORMS = pytest.mark.parametrize("call", [_function, _coroutine])

RULES = pytest.mark.parametrize(
    "rules",
    [
        {"slow_call_duration": 2.0},
        {"is_failed_result": lambda result: result == "bad"},
        {"slow_call_duration": 2.0, "is_failed_result": lambda result: result == "bad"},
        {"listeners": [RecordingListener()]},
    ],
    ids=["slow calls", "results", "both", "listener"],
)


def _totals(breaker: CircuitBreaker) -> tuple[int, int, int]:
    return breaker.total_successes, breaker.total_failures, breaker.in_flight


@FORMS
@RULES
def test_a_success_is_counted_once(call: Caller, rules: dict[str, Any]) -> None:
    """Afterwards no call is in flight. The first call takes another way than those after it."""
    breaker = make_breaker(FakeClock(), **rules)

    assert [call(breaker, lambda: "good") for _ in range(3)] == ["good"] * 3

    assert _totals(breaker) == (3, 0, 0)


@FORMS
@RULES
def test_an_error_is_counted_once_and_raised(call: Caller, rules: dict[str, Any]) -> None:
    """Rules about results and durations do not change this."""
    breaker = make_breaker(FakeClock(), **rules)

    def fail() -> None:
        raise DownError

    with pytest.raises(DownError):
        call(breaker, fail)

    assert _totals(breaker) == (0, 1, 0)


@FORMS
@pytest.mark.parametrize("rules", [{}, {"slow_call_duration": 2.0}], ids=["plain", "timed"])
def test_a_failed_result_is_returned_and_counted(call: Caller, rules: dict[str, Any]) -> None:
    """The caller receives the function's result."""
    breaker = make_breaker(FakeClock(), is_failed_result=lambda result: result == "bad", **rules)

    assert call(breaker, lambda: "bad") == "bad"

    assert _totals(breaker) == (0, 1, 0)


@FORMS
@pytest.mark.parametrize("rules", [{}, {"slow_call_duration": 2.0}], ids=["plain", "timed"])
def test_a_predicate_that_raises_counts_nothing(call: Caller, rules: dict[str, Any]) -> None:
    """It is a bug in the caller's code, not a failure of the dependency."""

    def confused(_: object) -> bool:
        raise ZeroDivisionError

    breaker = make_breaker(FakeClock(), is_failed_result=confused, **rules)

    with pytest.raises(ZeroDivisionError):
        call(breaker, lambda: "good")

    assert _totals(breaker) == (0, 0, 0)


@FORMS
@pytest.mark.parametrize("rules", [{}, {"slow_call_duration": 2.0}], ids=["plain", "timed"])
def test_a_result_is_judged_once(call: Caller, rules: dict[str, Any]) -> None:
    """A predicate may use up what it reads, so a second answer could be another one."""
    breaker = make_breaker(FakeClock(), is_failed_result=list.pop, **rules)

    call(breaker, lambda: [False, True])

    assert _totals(breaker) == (0, 1, 0)


class _Undecided:
    def __bool__(self) -> bool:
        raise ZeroDivisionError


@FORMS
@pytest.mark.parametrize("rules", [{}, {"slow_call_duration": 2.0}], ids=["plain", "timed"])
def test_an_answer_that_is_neither_true_nor_false_counts_nothing(
    call: Caller, rules: dict[str, Any]
) -> None:
    """Comparing an array returns such an answer, whose error reaches the caller."""
    breaker = make_breaker(FakeClock(), is_failed_result=lambda _: _Undecided(), **rules)

    with pytest.raises(ZeroDivisionError):
        call(breaker, lambda: "good")

    assert _totals(breaker) == (0, 0, 0)


@FORMS
def test_a_call_that_takes_too_long_counts_as_a_failure(call: Caller) -> None:
    """It counts as a failure even if it returns eventually."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)

    call(breaker, lambda: clock.advance(2.0))

    assert _totals(breaker) == (0, 1, 0)


@FORMS
def test_listeners_receive_the_duration_of_a_success(call: Caller) -> None:
    """The duration is in seconds on the breaker's clock."""
    clock, listener = FakeClock(), RecordingListener()
    breaker = make_breaker(clock, listeners=[listener])

    call(breaker, lambda: clock.advance(1.5))

    assert listener.events == [CallSucceeded(breaker.name, 1.5)]


@FORMS
@RULES
def test_an_open_circuit_refuses_and_a_probe_closes_it(call: Caller, rules: dict[str, Any]) -> None:
    """The state decides before any of the rules."""
    clock = FakeClock()
    breaker = make_breaker(clock, success_threshold=1, recovery_timeout=10.0, **rules)
    breaker.force_open("maintenance", 10.0)
    with pytest.raises(CircuitOpenError):
        call(breaker, lambda: "good")
    clock.advance(10.0)

    assert call(breaker, lambda: "good") == "good"

    assert breaker.is_closed


@RULES
def test_what_a_plain_function_returns_is_followed(rules: dict[str, Any]) -> None:
    """A returned coroutine counts when it was awaited, and a future when it is done."""
    breaker = make_breaker(FakeClock(), **rules)

    async def work() -> str:
        return "good"

    @breaker.protected
    def begin() -> Awaitable[str]:
        return work()

    @breaker.protected
    def submit() -> "Future[str]":
        future: Future[str] = Future()
        future.set_result("good")
        return future

    async def main() -> str:
        return await begin()

    assert asyncio.run(main()) == submit().result() == "good"
    assert _totals(breaker) == (2, 0, 0)
