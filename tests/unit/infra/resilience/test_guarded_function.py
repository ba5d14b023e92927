"""The decorator returns a function of the same kind whose calls are all guarded."""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    DownError,
    half_opened,
    make_breaker,
)


async def _coroutine_function(first: int, *, second: str = "x") -> str:
    """Documented."""
    return first * second


def _plain_function(first: int, *, second: str = "x") -> str:
    """Documented."""
    return first * second


async def _async_generator_function(first: int, *, second: str = "x") -> AsyncGenerator[str]:
    """Documented."""
    for _ in range(first):
        yield second


def _generator_function(first: int, *, second: str = "x") -> Generator[str]:
    """Documented."""
    for _ in range(first):
        yield second


KINDS: dict[str, tuple[Callable[..., Any], Callable[[object], bool]]] = {
    "coroutine function": (_coroutine_function, inspect.iscoroutinefunction),
    "plain function": (_plain_function, inspect.isfunction),
    "async generator function": (_async_generator_function, inspect.isasyncgenfunction),
    "generator function": (_generator_function, inspect.isgeneratorfunction),
}


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    """Behaviour of all four kinds of functions."""

    def test_kind_signature_and_metadata_are_kept(self, kind: str) -> None:
        """Frameworks that inspect the function see the original."""
        func, is_of_kind = KINDS[kind]
        guarded = make_breaker().protected(func)
        assert is_of_kind(guarded)
        assert [kind(guarded) for _, kind in KINDS.values()] == [
            kind(func) for _, kind in KINDS.values()
        ]
        assert inspect.signature(guarded) == inspect.signature(func)
        assert guarded.__name__ == func.__name__
        assert guarded.__qualname__ == func.__qualname__
        assert guarded.__doc__ == "Documented."
        assert guarded.__module__ == __name__
        assert guarded.__wrapped__ is func  # type: ignore[attr-defined]

    def test_a_decorated_method_receives_its_object(self, kind: str) -> None:
        """A decorated method receives its object."""
        seen: list[object] = []

        class Client:
            """A client with a guarded method."""

            breaker = make_breaker()

        async def coroutine_function(self: Client) -> None:
            seen.append(self)

        def plain_function(self: Client) -> None:
            seen.append(self)

        async def async_generator_function(self: Client) -> AsyncGenerator[None]:
            seen.append(self)
            yield

        def generator_function(self: Client) -> Generator[None]:
            seen.append(self)
            yield

        methods: list[Callable[[Client], Any]] = [
            coroutine_function,
            plain_function,
            async_generator_function,
            generator_function,
        ]
        method = methods[list(KINDS).index(kind)]
        client = Client()
        result = client.breaker.protected(method).__get__(client)()
        if inspect.isasyncgen(result):
            result = anext(result)
        if inspect.isgenerator(result):
            next(result)
        elif inspect.isawaitable(result):
            asyncio.run(_awaited(result))
        assert seen == [client]

    def test_wrong_arguments_give_the_permit_back(self, kind: str) -> None:
        """A call that fails before the first line of the function ends like any other."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1)
        for _ in range(2):
            with pytest.raises(TypeError):
                asyncio.run(_drained(breaker.protected(KINDS[kind][0])("too", "many")))
            assert breaker.in_flight == 0


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _drained(result: Any) -> list[Any]:
    """All items of a sync or async stream, or the result of a call."""
    if inspect.isasyncgen(result):
        return [item async for item in result]
    if inspect.isgenerator(result):
        return list(result)
    return [await result if inspect.isawaitable(result) else result]


class TestOtherCallables:
    """Partial functions, and objects that can be called."""

    async def test_partial_functions_are_of_the_kind_of_their_function(self) -> None:
        """A partial coroutine function is awaited."""
        guarded = make_breaker().protected(functools.partial(_coroutine_function, 2))
        assert inspect.iscoroutinefunction(guarded)
        assert await guarded(second="y") == "yy"

    async def test_objects_with_an_async_call_are_awaited(self) -> None:
        """The kind of `__call__` decides."""

        class Client:
            """Called to make a request."""

            async def __call__(self) -> str:
                return "done"

        breaker = make_breaker()
        guarded = breaker.protected(Client())
        assert inspect.iscoroutinefunction(guarded)
        assert await guarded() == "done"
        assert breaker.total_successes == 1

    @pytest.mark.parametrize("given", [None, 5, "call_api"])
    def test_what_cannot_be_called_is_refused(self, given: Any) -> None:
        """The mistake is found when the decorator is applied."""
        with pytest.raises(TypeError, match="only functions can be guarded"):
            make_breaker().protected(given)

    def test_a_descriptor_is_refused_with_the_right_order(self) -> None:
        """`@property` goes above the guard."""
        with pytest.raises(TypeError, match="below the other one"):
            make_breaker().protected(cast("Any", property(_plain_function)))

    def test_a_coroutine_is_refused_with_the_right_form(self) -> None:
        """The function must be passed without calling it."""
        with pytest.raises(TypeError, match="without calling it"):
            make_breaker().protected(cast("Any", _coroutine_function(1)))

    async def test_call_takes_whatever_returns_an_awaitable_or_a_value(self) -> None:
        """Coroutine functions, futures, and plain values."""
        breaker = make_breaker()
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.set_result("future")
        assert await breaker.call(_coroutine_function, 2, second="y") == "yy"
        assert await breaker.call(lambda: future) == "future"
        assert await breaker.call(_plain_function, 2, second="y") == "yy"
        assert breaker.total_successes == 3

    def test_call_sync_passes_arguments_on(self) -> None:
        """It passes positional and keyword arguments, including one called `func`."""
        breaker = make_breaker()
        assert breaker.call_sync(dict, func=1, self=2) == {"func": 1, "self": 2}


PLAIN_CALLS: dict[str, Callable[[CircuitBreaker, Callable[[], Any]], Any]] = {
    "decorated": lambda breaker, func: breaker.protected(func)(),
    "call_sync": lambda breaker, func: breaker.call_sync(func),
}


def _itself(future: Any) -> Any:
    return future


@pytest.mark.parametrize("how", PLAIN_CALLS)
class TestFutures:
    """A plain function may return a future, which has an outcome later."""

    async def test_the_outcome_of_the_future_counts(self, how: str) -> None:
        """It counts when the future is done, not when the function returns."""
        breaker = make_breaker(failure_threshold=1)
        futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
        for future in futures:
            assert PLAIN_CALLS[how](breaker, functools.partial(_itself, future)) is future
        assert breaker.in_flight == 3
        futures[0].set_result("worked")
        futures[1].cancel()
        await asyncio.sleep(0)
        assert (breaker.total_successes, breaker.total_failures, breaker.in_flight) == (1, 0, 1)
        futures[2].set_exception(DownError())
        await asyncio.sleep(0)
        assert (breaker.total_successes, breaker.total_failures, breaker.in_flight) == (1, 1, 0)
        assert breaker.is_open

    def test_work_in_an_executor_counts_when_it_is_done(self, how: str) -> None:
        """Futures of an executor are of another class, and end in another thread."""
        breaker = make_breaker(failure_threshold=1)

        def work() -> None:
            raise DownError

        with ThreadPoolExecutor(1) as executor:
            future = PLAIN_CALLS[how](breaker, lambda: executor.submit(work))
        assert isinstance(future.exception(), DownError)
        assert breaker.is_open

    def test_a_mock_is_not_a_future(self, how: str) -> None:
        """A mock has every attribute, and would never be done."""
        breaker = make_breaker()
        PLAIN_CALLS[how](breaker, MagicMock())
        assert (breaker.total_successes, breaker.in_flight) == (1, 0)

    async def test_an_object_with_other_callbacks_is_not_a_future(self, how: str) -> None:
        """An example are calls of gRPC, which have no `result` method."""

        class Call:
            """An object with `add_done_callback`, but without `result`."""

            def add_done_callback(self, _: object) -> None:
                """Accept a callback that would not receive a future."""

        breaker = make_breaker()
        PLAIN_CALLS[how](breaker, Call)
        assert (breaker.total_successes, breaker.in_flight) == (1, 0)

    async def test_a_probe_keeps_its_slot_until_the_future_is_done(self, how: str) -> None:
        """The result of the future may be a failure, too."""
        breaker = half_opened(
            FakeClock(), half_open_max_calls=1, is_failed_result=lambda result: result == "bad"
        )
        future = asyncio.get_running_loop().create_future()
        PLAIN_CALLS[how](breaker, lambda: future)
        with pytest.raises(CircuitOpenError):
            PLAIN_CALLS[how](breaker, lambda: future)
        future.set_result("bad")
        await asyncio.sleep(0)
        assert breaker.is_open
