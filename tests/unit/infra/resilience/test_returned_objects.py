"""What a plain function returns decides how its call is guarded."""

import asyncio
import concurrent.futures
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    DownError,
    counts,
    half_opened,
    make_breaker,
)


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
