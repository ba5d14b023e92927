"""What counts as success, failure or neutral, in every form of call."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    PLAIN_FORMS,
    BadRequestError,
    DownError,
    counts,
    fail,
    half_opened,
    make_breaker,
)


def raising(error: BaseException) -> Callable[[], Any]:
    """A function that raises."""

    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize("form", PLAIN_FORMS)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CircuitOpenError("of another breaker"), (0, 0, 0)),
        (concurrent.futures.CancelledError(), (0, 0, 0)),
        (asyncio.CancelledError(), (0, 0, 0)),
        (StopAsyncIteration(), (0, 1, 0)),
        (StopIteration(), (0, 1, 0)),
        (ExceptionGroup("g", [ValueError(), DownError()]), (1, 0, 0)),
        (BaseExceptionGroup("g", [asyncio.CancelledError(), DownError()]), (1, 0, 0)),
        (BaseExceptionGroup("g", [asyncio.CancelledError()]), (0, 0, 0)),
        (ExceptionGroup("g", [ExceptionGroup("h", [CircuitOpenError("x")])]), (0, 0, 0)),
        (KeyboardInterrupt(), (0, 0, 0)),
    ],
    ids=repr,
)
def test_exceptions_are_judged_alike_in_every_form(
    form: str, error: BaseException, expected: tuple[int, int, int]
) -> None:
    """Refusals, cancellations and control flow are no failures; the leaves of groups decide."""
    breaker = make_breaker(expected_exception=Exception)
    with pytest.raises(type(error)) as caught:
        PLAIN_FORMS[form](breaker, raising(error))
    assert caught.value is error
    assert counts(breaker) == expected


async def test_the_end_of_an_iteration_is_a_success_if_python_wraps_it() -> None:
    """Coroutines and generators cannot raise it: Python turns it into a RuntimeError."""
    breaker = make_breaker(expected_exception=Exception)

    @breaker.protected
    async def first(items: list[int]) -> int:
        return next(iter(items))

    @breaker.protected
    def firsts(items: list[int]) -> Iterator[int]:
        yield next(iter(items))

    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        await first([])
    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(firsts([]))
    assert counts(breaker) == (0, 2, 0)


def test_a_refusal_behind_another_exception_is_neutral() -> None:
    """A client that wraps a refusal with `raise ... from` has made no call either."""
    breaker = make_breaker(expected_exception=Exception)

    def call() -> None:
        try:
            raising(CircuitOpenError("of another breaker"))()
        except CircuitOpenError as refusal:
            raise ConnectionError("wrapped") from refusal

    with pytest.raises(ConnectionError):
        breaker.call_sync(call)
    assert counts(breaker) == (0, 0, 0)


def test_a_refusal_is_not_looked_for_behind_endless_causes() -> None:
    """A chain of causes may be a circle."""
    breaker = make_breaker(expected_exception=Exception)
    error = ConnectionError()
    error.__cause__ = other = OSError()
    other.__cause__ = error
    with pytest.raises(ConnectionError):
        breaker.call_sync(raising(error))
    assert counts(breaker) == (1, 0, 0)


def test_a_fallback_that_fails_after_a_refusal_is_a_failure() -> None:
    """In that case, a call was made."""
    breaker = make_breaker(expected_exception=Exception)

    def call() -> None:
        try:
            raising(CircuitOpenError("of another breaker"))()
        except CircuitOpenError:
            raise ConnectionError("of the fallback")  # noqa: B904 - This is the case under test.

    with pytest.raises(ConnectionError):
        breaker.call_sync(call)
    assert counts(breaker) == (1, 0, 0)


def test_a_refusal_counts_where_it_is_expected_by_name() -> None:
    """Listing the type explicitly makes it count."""
    breaker = make_breaker(expected_exception=(DownError, CircuitOpenError))
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(raising(CircuitOpenError("of another breaker")))
    assert counts(breaker) == (1, 0, 0)


def test_a_refusal_is_not_an_answer_of_a_healthy_dependency() -> None:
    """An `is_success` that accepts almost any exception does not mean refusals."""
    breaker = make_breaker(
        expected_exception=Exception, is_success=lambda error: not isinstance(error, DownError)
    )
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(raising(CircuitOpenError("of another breaker")))
    assert counts(breaker) == (0, 0, 0)


class TestIsSuccess:
    """Exceptions that count as answers of the dependency."""

    @staticmethod
    def _breaker(**parameters: Any) -> CircuitBreaker:
        return make_breaker(
            expected_exception=Exception,
            is_success=lambda error: isinstance(error, BadRequestError),
            **parameters,
        )

    def test_it_ends_a_row_of_failures(self) -> None:
        """It ends failures in a row like any success."""
        breaker = self._breaker(failure_threshold=3)
        fail(breaker, 2)
        with pytest.raises(BadRequestError), breaker:
            raise BadRequestError
        assert counts(breaker) == (2, 1, 0)
        fail(breaker, 2)
        assert breaker.is_closed

    def test_it_closes_a_half_open_circuit(self) -> None:
        """The answer shows that the dependency works again."""
        clock = FakeClock()
        breaker = self._breaker(success_threshold=1, failure_threshold=1, clock=clock)
        fail(breaker)
        clock.advance(breaker.recovery_timeout)
        with pytest.raises(BadRequestError):
            breaker.call_sync(raising(BadRequestError()))
        assert breaker.is_closed

    def test_one_that_raises_makes_the_call_neutral(self) -> None:
        """The exception of the predicate reaches the caller."""
        breaker = make_breaker(expected_exception=Exception, is_success=lambda _: 1 // 0 == 0)
        with pytest.raises(ZeroDivisionError), breaker:
            raise DownError
        assert counts(breaker) == (0, 0, 0)


class TestOpenFor:
    """A failure that says how long to wait."""

    def test_one_failure_opens_at_once_for_that_long(self) -> None:
        """The threshold does not matter."""
        clock = FakeClock()
        breaker = make_breaker(clock, open_for=lambda error: error.args[0])
        with pytest.raises(DownError), breaker:
            raise DownError(7.0)
        assert breaker.is_open
        assert breaker.get_metrics()["retry_after"] == 7.0
        assert "asked for a wait of 7 seconds" in breaker.get_metrics()["reason"]
        clock.advance(7.0)
        assert breaker.is_half_open
        with pytest.raises(DownError), breaker:
            raise DownError(3.0)
        assert breaker.get_metrics()["retry_after"] == 3.0

    @pytest.mark.parametrize("answer", [None, 0.0, -1.0, float("nan")])
    def test_an_answer_that_is_not_a_wait_changes_nothing(self, answer: float | None) -> None:
        """It counts as an ordinary failure."""
        breaker = make_breaker(failure_threshold=2, open_for=lambda _: answer)
        fail(breaker)
        assert breaker.is_closed
        fail(breaker)
        assert breaker.get_metrics()["retry_after"] == breaker.recovery_timeout

    @pytest.mark.parametrize("answer", ["30", timedelta(seconds=30), [30]])
    def test_an_answer_that_is_not_a_number_is_refused_by_name(self, answer: Any) -> None:
        """The header of a response is a string until it is converted."""
        breaker = make_breaker(open_for=lambda _: answer)
        with pytest.raises(TypeError, match="open_for must return seconds or None"), breaker:
            raise DownError
        assert counts(breaker) == (0, 0, 0)

    @pytest.mark.parametrize("answer", [1e9, float("inf"), pytest.param(10**400, id="huge")])
    def test_no_wait_is_longer_than_a_day(self, answer: float) -> None:
        """Longer waits of the dependency are shortened to this."""
        breaker = make_breaker(open_for=lambda _: answer)
        fail(breaker)
        assert breaker.get_metrics()["retry_after"] == 86_400.0

    def test_a_failed_result_can_ask_for_a_wait_too(self) -> None:
        """The function receives the result."""
        breaker = make_breaker(is_failed_result=lambda _: True, open_for=lambda result: result)
        assert breaker.call_sync(lambda: 12.0) == 12.0
        assert breaker.get_metrics()["retry_after"] == 12.0

    def test_a_failed_result_is_neutral_if_reading_its_wait_raises(self) -> None:
        """The caller gets the exception, and the call is no longer in flight."""
        breaker = make_breaker(
            is_failed_result=lambda _: True, open_for=lambda result: result["wait"]
        )
        with pytest.raises(KeyError, match="wait"):
            breaker.call_sync(dict)
        assert counts(breaker) == (0, 0, 0)
        assert breaker.get_metrics()["in_flight"] == 0

    def test_of_a_group_the_longest_wait_of_its_failures_counts(self) -> None:
        """Neutral exceptions in the group are ignored."""
        breaker = make_breaker(
            expected_exception=DownError,
            open_for=lambda error: error.args[0] if error.args else None,
        )
        inner = ExceptionGroup("inner", [DownError(7.0), KeyError(99.0)])
        with pytest.raises(ExceptionGroup), breaker:
            raise ExceptionGroup("both", [DownError(3.0), inner, DownError()])
        assert breaker.get_metrics()["retry_after"] == 7.0

    def test_a_disabled_circuit_stays_closed(self) -> None:
        """An operator's decision takes precedence."""
        breaker = make_breaker(open_for=lambda _: 5.0)
        breaker.disable("on purpose")
        fail(breaker)
        assert breaker.is_closed


class TestProbeTimeout:
    """The default time limit of a probe."""

    def test_a_healthy_slow_call_recovers(self) -> None:
        """A short `recovery_timeout` does not limit a probe."""
        clock = FakeClock()
        breaker = half_opened(clock, recovery_timeout=10.0, success_threshold=1)
        with breaker:
            clock.advance(12.0)
        assert breaker.is_closed
        assert breaker.probe_timeout == 60.0

    def test_the_reason_names_the_parameter_to_raise(self) -> None:
        """It says what to change."""
        clock = FakeClock()
        breaker = half_opened(clock, recovery_timeout=100.0)
        breaker.acquire()
        clock.advance(100.0)
        assert breaker.is_open
        assert "probe did not end within 100 seconds (probe_timeout)" in str(
            breaker.get_metrics()["reason"]
        )
