"""What counts as success, failure or neutral, in every form of call."""

import asyncio
import concurrent.futures
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    PLAIN_FORMS,
    BadRequestError,
    DownError,
    fail,
    half_opened,
    make_breaker,
)


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Failures, successes and calls in flight."""
    return breaker.total_failures, breaker.total_successes, breaker.in_flight


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


def plain(func: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that hides what kind of function it decorates."""
    return lambda: func()  # noqa: PLW0108 - This hides the kind of the function.


class Awaitable:
    """An awaitable that is neither a coroutine nor a future, like those of Cython or gRPC."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def __await__(self) -> Generator[None, None, str]:
        """Suspend once, then end."""
        yield
        if self._error is not None:
            raise self._error
        return "fine"


class TestReturnedObject:
    """The object that a plain function returns decides how it is guarded."""

    @pytest.mark.parametrize("form", ["protected", "call", "call_sync"])
    async def test_any_awaitable_is_awaited_under_the_guard(self, form: str) -> None:
        """The call ends when the awaitable does."""
        breaker = make_breaker()
        for error, expected in ((None, (0, 1, 0)), (DownError(), (1, 1, 0))):
            make = partial(Awaitable, error)
            forms: dict[str, Callable[[], Any]] = {
                "protected": breaker.protected(make),
                "call": partial(breaker.call, make),
                "call_sync": partial(breaker.call_sync, make),
            }
            awaited = forms[form]()
            with suppress(DownError):
                assert await awaited == "fine"
            assert counts(breaker) == expected

    async def test_a_coroutine_made_from_a_generator_is_awaited_in_every_form(self) -> None:
        """`types.coroutine` marks a generator function whose generators are awaited."""
        breaker = make_breaker()

        @types.coroutine
        def work() -> Generator[Any, Any, str]:
            yield from asyncio.sleep(0).__await__()
            return "fine"

        assert await breaker.protected(work)() == "fine"
        assert await breaker.protected(partial(work))() == "fine"
        assert await breaker.call(work) == "fine"
        assert await breaker.call_sync(work) == "fine"
        assert counts(breaker) == (0, 4, 0)

    async def test_call_sync_guards_a_coroutine_that_a_plain_function_returns(self) -> None:
        """It is guarded when it is awaited, as it is behind the decorator."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1)

        async def work() -> None:
            raise DownError

        coroutine = breaker.call_sync(plain(work))
        assert (breaker.in_flight, breaker.is_half_open) == (0, True)
        with pytest.raises(DownError):
            await coroutine
        assert breaker.is_open

    async def test_call_sync_refuses_a_coroutine_function_by_name(self) -> None:
        """Its caller meant to await it. The error shows the correct form, and is neutral."""
        breaker = make_breaker(expected_exception=Exception)

        async def work() -> None: ...

        funcs: list[Callable[[], Any]] = [work, partial(work)]
        for func in funcs:
            with pytest.raises(TypeError, match=r"work.*use `await call\(\.\.\.\)`"):
                breaker.call_sync(func)
        assert counts(breaker) == (0, 0, 0)

    @pytest.mark.parametrize("form", ["protected", "call", "call_sync"])
    async def test_a_future_that_is_done_is_settled_at_once(self, form: str) -> None:
        """Calls that return finished, failed futures in a loop open the circuit."""
        breaker = make_breaker(failure_threshold=3)
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_exception(DownError())
        for _ in range(3):
            assert breaker.is_closed
            if form == "call":
                assert await breaker.call(lambda: future) is future
            elif form == "call_sync":
                breaker.call_sync(lambda: future)
            else:
                breaker.protected(lambda: future)()
        assert breaker.is_open

    @pytest.mark.parametrize("form", ["protected", "call_sync"])
    def test_a_generator_behind_a_plain_decorator_is_guarded_until_its_end(self, form: str) -> None:
        """An error in the middle of it is a failure."""
        breaker = make_breaker(failure_threshold=1)

        def items() -> Iterator[int]:
            yield 1
            raise DownError

        given = (
            breaker.protected(plain(items))()
            if form == "protected"
            else breaker.call_sync(plain(items))
        )
        assert next(given) == 1
        assert counts(breaker) == (0, 0, 1)
        with pytest.raises(DownError):
            next(given)
        assert breaker.is_open

    async def test_an_async_generator_behind_a_plain_decorator_is_guarded_too(self) -> None:
        """It is guarded until its end."""
        breaker = make_breaker()

        async def items() -> AsyncGenerator[int]:
            yield 1

        given = breaker.protected(plain(items))()
        assert [item async for item in given] == [1]
        assert counts(breaker) == (0, 1, 0)

    @pytest.mark.parametrize("manager", [contextmanager, asynccontextmanager])
    async def test_a_context_manager_made_from_a_generator_is_refused_by_name(
        self, manager: Callable[[Any], Callable[[], Any]]
    ) -> None:
        """Its block would run unguarded. The error shows the correct order, and is neutral."""
        breaker = make_breaker(expected_exception=Exception)

        async def async_session() -> AsyncGenerator[None]:
            yield

        def session() -> Iterator[None]:
            yield

        made = manager(session if manager is contextmanager else async_session)
        with pytest.raises(TypeError, match=r"session.* below @contextmanager"):
            breaker.protected(made)()
        with pytest.raises(TypeError, match=r"session.* below @contextmanager"):
            await breaker.call(made)
        with pytest.raises(TypeError, match=r"session.* below @contextmanager"):
            breaker.call_sync(made)
        assert counts(breaker) == (0, 0, 0)

    async def test_a_coroutine_instead_of_a_function_is_refused_by_name(self) -> None:
        """The error shows the correct form, and is neutral."""
        breaker = make_breaker(expected_exception=Exception)

        async def work() -> None: ...

        with pytest.raises(TypeError, match=r"as in call\(func, 1\)"):
            await breaker.call(work())  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"as in call\(func, 1\)"):
            breaker.call_sync(work())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"as in call\(func, 1\), not 'work'"):
            breaker.call_sync("work")  # type: ignore[arg-type]
        assert counts(breaker) == (0, 0, 0)

    async def test_static_and_class_methods_can_be_guarded(self) -> None:
        """The decorators may be in either order."""
        breaker = make_breaker()

        class Client:
            @breaker.protected
            @staticmethod
            async def first() -> str:
                return "first"

            @breaker.protected
            @classmethod
            def second(cls) -> str:
                return cls.__name__

        assert await Client.first() == await Client().first() == "first"
        assert Client.second() == Client().second() == "Client"
        assert counts(breaker) == (0, 4, 0)


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
        """It tells the operator what to change."""
        clock = FakeClock()
        breaker = half_opened(clock, recovery_timeout=100.0)
        breaker.acquire()
        clock.advance(100.0)
        assert breaker.is_open
        assert "probe did not end within 100 seconds (probe_timeout)" in str(
            breaker.get_metrics()["reason"]
        )
