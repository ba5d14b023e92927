"""What a decorator returns: a function of the same kind, each of whose calls is guarded."""

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import MagicMock

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.scenes import (
    BadRequestError,
    DownError,
    fail,
    half_opened,
    make_breaker,
    opened,
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
    """What the four kinds of functions have in common."""

    def test_kind_signature_and_metadata_are_kept(self, kind: str) -> None:
        """Frameworks that look at a function see the one that was guarded."""
        func, is_of_kind = KINDS[kind]
        guarded = make_breaker().protected(func)
        assert is_of_kind(guarded)
        assert [one(guarded) for _, one in KINDS.values()] == [
            one(func) for _, one in KINDS.values()
        ]
        assert inspect.signature(guarded) == inspect.signature(func)
        assert guarded.__name__ == func.__name__
        assert guarded.__qualname__ == func.__qualname__
        assert guarded.__doc__ == "Documented."
        assert guarded.__module__ == __name__
        assert guarded.__wrapped__ is func  # type: ignore[attr-defined]

    def test_methods_are_bound(self, kind: str) -> None:
        """A decorated method gets its object."""
        seen: list[object] = []

        class Client:
            """Has a guarded method."""

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
        """A call that fails before the first line of the function has ended all the same."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1)
        for _ in range(2):
            with pytest.raises(TypeError):
                asyncio.run(_drained(breaker.protected(KINDS[kind][0])("too", "many")))
            assert breaker.in_flight == 0


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _drained(result: Any) -> list[Any]:
    """All items of a stream of either kind, or the result of a call."""
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
        """What `__call__` is decides."""

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
        """A slip of the pen is found when the decorator is applied."""
        with pytest.raises(TypeError, match="only functions can be guarded"):
            make_breaker().protected(given)

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
        """Positional and keyword arguments, `func` among them."""
        breaker = make_breaker()
        assert breaker.call_sync(dict, func=1, self=2) == {"func": 1, "self": 2}


# --- Streams. ---


PLAIN_CALLS: dict[str, Callable[[CircuitBreaker, Callable[[], Any]], Any]] = {
    "decorated": lambda breaker, func: breaker.protected(func)(),
    "call_sync": lambda breaker, func: breaker.call_sync(func),
}


def _itself(future: Any) -> Any:
    return future


@pytest.mark.parametrize("how", PLAIN_CALLS)
class TestFutures:
    """A plain function may return what will have an outcome."""

    async def test_the_outcome_of_the_future_counts(self, how: str) -> None:
        """When it is there, and not when the function returns."""
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
        """Its futures are of another kind, and end in another thread."""
        breaker = make_breaker(failure_threshold=1)

        def work() -> None:
            raise DownError

        with ThreadPoolExecutor(1) as executor:
            future = PLAIN_CALLS[how](breaker, lambda: executor.submit(work))
        assert isinstance(future.exception(), DownError)
        assert breaker.is_open

    def test_a_mock_is_no_future(self, how: str) -> None:
        """It has every attribute that is asked for, and would never be done."""
        breaker = make_breaker()
        PLAIN_CALLS[how](breaker, MagicMock())
        assert (breaker.total_successes, breaker.in_flight) == (1, 0)

    async def test_what_has_callbacks_of_its_own_is_no_future(self, how: str) -> None:
        """Such as the calls of gRPC, which have no result to ask for."""

        class Call:
            """Can be awaited, and says when it is done."""

            def add_done_callback(self, _: object) -> None:
                """Would call back with something that is no future."""

        breaker = make_breaker()
        PLAIN_CALLS[how](breaker, Call)
        assert (breaker.total_successes, breaker.in_flight) == (1, 0)

    async def test_a_probe_holds_its_place_until_the_future_is_done(self, how: str) -> None:
        """And a result may be a failed one."""
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


class Source:
    """The stream of a dependency, of both kinds, that notes how it is treated."""

    def __init__(self, items: int = 3, *, error: Exception | None = None) -> None:
        self.items = items
        self.error = error
        self.notes: list[object] = []

    async def stream(self) -> AsyncGenerator[int, str]:
        """Yield the items, then fail if told to."""
        try:
            for item in range(self.items):
                try:
                    self.notes.append((yield item))
                except BadRequestError as thrown:
                    self.notes.append(thrown)
            if self.error is not None:
                raise self.error
        finally:
            self.notes.append("closed")

    def plain_stream(self) -> Generator[int, str, str]:
        """Yield the items, then fail if told to."""
        try:
            for item in range(self.items):
                try:
                    self.notes.append((yield item))
                except BadRequestError as thrown:
                    self.notes.append(thrown)
            if self.error is not None:
                raise self.error
            return "result"
        finally:
            self.notes.append("closed")


class TestAsyncGenerators:
    """The outcome of a stream is known at its end."""

    async def test_a_stream_read_to_its_end_is_a_success(self) -> None:
        """It holds its permit until then."""
        breaker = make_breaker()
        seen = []
        async for item in breaker.protected(Source().stream)():
            assert breaker.in_flight == 1
            assert breaker.total_successes == 0
            seen.append(item)
        assert seen == [0, 1, 2]
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    async def test_a_failure_in_the_middle_is_a_failure(self) -> None:
        """That its first items came does not make it a success."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source(error=DownError("half-way")).stream)()
        assert [await anext(stream), await anext(stream), await anext(stream)] == [0, 1, 2]
        with pytest.raises(DownError, match="half-way"):
            await anext(stream)
        assert breaker.is_open
        assert breaker.total_successes == 0

    async def test_closing_it_after_an_item_is_a_success_and_closes_the_source(self) -> None:
        """The dependency answered, and the client has read enough."""
        breaker = half_opened(FakeClock())
        source = Source()
        stream = breaker.protected(source.stream)()
        await anext(stream)
        await stream.aclose()
        assert source.notes == ["closed"]
        assert breaker.in_flight == 0
        assert breaker.is_half_open
        assert breaker.total_successes == 1

    async def test_dropping_it_after_an_item_is_a_success(self) -> None:
        """An abandoned stream is closed by the event loop."""
        breaker = make_breaker()
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        del stream
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert breaker.in_flight == 0
        assert (breaker.total_failures, breaker.total_successes) == (0, 1)

    async def test_cancellation_while_it_waits_is_neutral(self) -> None:
        """As that of any call."""
        breaker = make_breaker()

        @breaker.protected
        async def silent() -> AsyncGenerator[int]:
            await asyncio.Event().wait()
            yield 1

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(silent())
        assert breaker.in_flight == 0
        assert breaker.total_failures == 0

    async def test_a_stream_nobody_reads_asks_for_nothing(self) -> None:
        """The permit is taken with the first item."""
        breaker = opened(FakeClock())
        stream = breaker.protected(Source().stream)()
        assert breaker.total_rejections == 0
        with pytest.raises(CircuitOpenError):
            await anext(stream)
        assert breaker.total_rejections == 1

    async def test_sent_values_and_thrown_exceptions_reach_the_source(self) -> None:
        """The guard is transparent in both directions."""
        breaker = make_breaker()
        source = Source()
        stream = breaker.protected(source.stream)()
        thrown = BadRequestError("consumer's")
        assert await anext(stream) == 0
        assert await stream.asend("sent") == 1
        assert await stream.athrow(thrown) == 2
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert source.notes == ["sent", thrown, None, "closed"]
        assert breaker.total_successes == 1

    async def test_an_exception_that_the_consumer_throws_is_neutral_when_it_comes_back(
        self,
    ) -> None:
        """It is the consumer's own: FastAPI throws the error of an endpoint into a dependency."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        with pytest.raises(DownError):
            await stream.athrow(DownError())
        assert breaker.is_closed
        assert (breaker.total_failures, breaker.total_successes, breaker.in_flight) == (0, 0, 0)

    async def test_probes_of_a_recovery_hold_their_places(self) -> None:
        """A stream that is being read is a call in progress."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        with pytest.raises(CircuitOpenError):
            breaker.call_sync(str)
        assert [item async for item in stream] == [1, 2]
        assert breaker.is_closed

    async def test_a_late_end_of_a_stream_changes_nothing(self) -> None:
        """The circuit has opened since the stream began."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source().stream)()
        await anext(stream)
        fail(breaker)
        assert [item async for item in stream] == [1, 2]
        assert breaker.is_open
        assert breaker.total_successes == 1


class TestGenerators:
    """The same for plain streams."""

    def test_a_stream_read_to_its_end_is_a_success_and_returns_its_result(self) -> None:
        """`yield from` gives what the generator returned."""
        breaker = make_breaker()

        def consumer() -> Generator[int, str, str]:
            return (yield from breaker.protected(Source().plain_stream)())

        stream = consumer()
        assert [next(stream), next(stream), next(stream)] == [0, 1, 2]
        assert breaker.in_flight == 1
        with pytest.raises(StopIteration) as caught:
            next(stream)
        assert caught.value.value == "result"
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    def test_a_failure_in_the_middle_is_a_failure(self) -> None:
        """That its first items came does not make it a success."""
        breaker = make_breaker(failure_threshold=1)
        stream = breaker.protected(Source(error=DownError("half-way")).plain_stream)()
        assert [next(stream), next(stream), next(stream)] == [0, 1, 2]
        with pytest.raises(DownError, match="half-way"):
            next(stream)
        assert breaker.is_open

    @pytest.mark.parametrize("how", ["closed", "dropped"])
    def test_ending_it_after_an_item_is_a_success_and_closes_the_source(self, how: str) -> None:
        """The dependency answered, and the client has read enough."""
        breaker = half_opened(FakeClock())
        source = Source()
        stream = breaker.protected(source.plain_stream)()
        next(stream)
        if how == "closed":
            stream.close()
        else:
            del stream
            gc.collect()
        assert source.notes == ["closed"]
        assert breaker.in_flight == 0
        assert breaker.is_half_open
        assert breaker.total_successes == 1

    def test_sent_values_and_thrown_exceptions_reach_the_source(self) -> None:
        """The guard is transparent in both directions."""
        breaker = make_breaker()
        source = Source()
        stream = breaker.protected(source.plain_stream)()
        thrown = BadRequestError("consumer's")
        assert next(stream) == 0
        assert stream.send("sent") == 1
        assert stream.throw(thrown) == 2
        assert list(stream) == []
        assert source.notes == ["sent", thrown, None, "closed"]
        assert breaker.total_successes == 1

    def test_a_stream_nobody_reads_asks_for_nothing(self) -> None:
        """The permit is taken with the first item."""
        breaker = opened(FakeClock())
        stream = breaker.protected(Source().plain_stream)()
        assert breaker.total_rejections == 0
        with pytest.raises(CircuitOpenError):
            next(stream)
        assert breaker.total_rejections == 1
