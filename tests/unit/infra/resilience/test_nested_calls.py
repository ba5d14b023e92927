"""A call that passes the same breaker twice counts once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.rules import lockfree
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import DownError, half_opened, make_breaker


class TranslatedError(DownError):
    """The error into which a client translates that of its dependency."""


async def down() -> None:
    """A call that fails."""
    raise DownError


def nested_block(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """A guarded function inside a guarded block."""
    guarded = breaker.protected(down)

    async def call() -> None:
        async with breaker:
            await guarded()

    return call


def nested_functions(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """A guarded function inside a guarded function."""
    guarded = breaker.protected(down)

    @breaker.protected
    async def call() -> None:
        await guarded()

    return call


def raised_again(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """The error is caught and raised again in between, directly and through a helper."""
    guarded = breaker.protected(down)

    def hand_on(error: Exception) -> None:
        raise error

    @breaker.protected
    async def call() -> None:
        try:
            await guarded()
        except DownError as error:
            hand_on(error)

    return call


def translated(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """The error is translated in between."""
    guarded = breaker.protected(down)

    @breaker.protected
    async def call() -> None:
        try:
            await guarded()
        except DownError as error:
            raise TranslatedError from error

    return call


def translated_silently(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """The error is translated in between without naming it as the cause."""
    guarded = breaker.protected(down)

    @breaker.protected
    async def call() -> None:
        try:
            await guarded()
        except DownError:
            raise TranslatedError  # noqa: B904 - This is the case under test.

    return call


def translated_twice(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """A library translates the driver's error, and the caller that of the library."""
    guarded = breaker.protected(down)

    async def library() -> None:
        try:
            await guarded()
        except DownError as error:
            raise TranslatedError from error

    @breaker.protected
    async def call() -> None:
        try:
            await library()
        except TranslatedError as error:
            raise DownError from error

    return call


def in_a_task(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """The inner call runs in a task."""
    guarded = breaker.protected(down)

    async def call() -> None:
        async with breaker:
            await asyncio.create_task(guarded())

    return call


def in_another_thread(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """The inner call runs in an executor, and its future raises the error again."""

    def raise_down() -> None:
        raise DownError

    guarded = breaker.protected(raise_down)

    async def call() -> None:
        with ThreadPoolExecutor(1) as executor, breaker:
            executor.submit(guarded).result()

    return call


def in_a_context_manager(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """The inner block is inside a context manager, which resets the traceback of the error."""

    @contextmanager
    def connection() -> Iterator[None]:
        with breaker:
            yield

    @asynccontextmanager
    async def session() -> AsyncIterator[None]:
        with connection():
            async with breaker:
                yield

    @breaker.protected
    async def call() -> None:
        async with breaker, session(), AsyncExitStack() as stack:
            await stack.enter_async_context(session())
            await down()

    return call


def collected(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """The error is collected as a result, and raised later."""
    guarded = breaker.protected(down)

    async def client() -> None:
        await guarded()

    @breaker.protected
    async def call() -> None:
        async with breaker:
            (error,) = await asyncio.gather(client(), return_exceptions=True)
            assert isinstance(error, DownError)
            raise error

    return call


def collected_from_a_task(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    """A helper raises the error of an awaited task."""
    guarded = breaker.protected(down)

    def check(task: asyncio.Task[None]) -> None:
        if (error := task.exception()) is not None:
            raise error

    async def call() -> None:
        async with breaker:
            task = asyncio.create_task(guarded())
            await asyncio.wait([task])
            check(task)

    return call


NESTED = [
    nested_block,
    nested_functions,
    raised_again,
    translated,
    translated_silently,
    translated_twice,
    in_a_task,
    in_another_thread,
    in_a_context_manager,
    collected,
    collected_from_a_task,
]


@pytest.mark.parametrize("nest", NESTED)
async def test_a_nested_failure_is_counted_once(
    nest: Callable[[CircuitBreaker], Callable[[], Awaitable[None]]],
) -> None:
    """Five calls open the circuit, however many guards each one passes."""
    breaker = make_breaker(failure_threshold=5)
    call = nest(breaker)
    for _ in range(4):
        with pytest.raises(DownError):
            await call()
    assert breaker.is_closed
    assert breaker.total_failures == 4
    with pytest.raises(DownError):
        await call()
    assert breaker.is_open
    assert breaker.in_flight == 0


async def test_failures_with_one_cause_count_for_each_call() -> None:
    """A client that is permanently broken names the same cause at each call."""
    breaker = make_breaker(failure_threshold=9)
    (cause,) = await asyncio.gather(breaker.protected(down)(), return_exceptions=True)
    assert isinstance(cause, DownError)

    @breaker.protected
    async def send() -> None:
        raise TranslatedError from cause

    for _ in range(4):
        with pytest.raises(TranslatedError):
            await send()
    assert breaker.total_failures == 5


async def test_one_exception_object_raised_through_a_context_manager_counts_for_each() -> None:
    """A context manager resets the traceback, even that of an error that a mock raises again."""
    breaker = make_breaker(failure_threshold=9)
    call = in_a_context_manager(breaker)
    error = DownError()

    async def same() -> None:
        raise error

    @asynccontextmanager
    async def session() -> AsyncIterator[None]:
        async with breaker:
            yield

    for _ in range(3):
        with pytest.raises(DownError):
            await call()
        with pytest.raises(DownError):
            async with session():
                await same()
        with pytest.raises(DownError):
            async with session():
                raise error

    assert breaker.total_failures == 9


async def test_a_group_of_counted_failures_is_not_one_more() -> None:
    """Each call of the task group has been counted, so the block around them adds nothing."""
    breaker = make_breaker(failure_threshold=9)
    guarded = breaker.protected(down)
    with pytest.RaisesGroup(DownError, DownError):
        async with breaker, asyncio.TaskGroup() as group:
            group.create_task(guarded())
            group.create_task(guarded())
    assert breaker.total_failures == 2

    with pytest.RaisesGroup(DownError, DownError):
        async with breaker, asyncio.TaskGroup() as group:
            group.create_task(guarded())
            group.create_task(down())
    assert breaker.total_failures == 4


@pytest.mark.parametrize("neutral", [KeyError(), asyncio.CancelledError()])
async def test_what_is_neutral_beside_counted_failures_adds_nothing(neutral: BaseException) -> None:
    """The block adds a failure only if the group has one that was not counted."""
    breaker = make_breaker(failure_threshold=9, expected_exception=DownError)
    with suppress(BaseExceptionGroup), breaker:
        try:
            with breaker:
                await down()
        except DownError as error:
            raise BaseExceptionGroup("both", [error, neutral]) from None

    assert breaker.total_failures == 1


async def test_a_call_inside_a_stream_is_part_of_its_probe() -> None:
    """A stream and the calls that it makes need a single slot, at each of its items."""
    breaker = half_opened(FakeClock(), success_threshold=2, half_open_max_calls=1)

    @breaker.protected
    async def item(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @breaker.protected
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield await item(number)

    @breaker.protected
    def plain_items() -> Iterator[int]:
        yield from (breaker.call_sync(int, number) for number in range(3))

    assert [item async for item in items()] == [0, 1, 2]
    assert breaker.is_half_open
    assert list(plain_items()) == [0, 1, 2]
    assert breaker.is_closed


async def test_the_consumer_of_a_stream_is_not_part_of_its_probe() -> None:
    """Its calls between two items need their own slot."""

    def numbers() -> Generator[int, None, None]:
        yield from range(2)

    async def later_numbers() -> AsyncGenerator[int, None]:
        for number in numbers():
            yield number

    breaker = half_opened(FakeClock(), success_threshold=2, half_open_max_calls=1)
    stream = breaker.protected(later_numbers)()
    assert await anext(stream) == 0
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(int)
    await stream.aclose()
    plain_stream = breaker.protected(numbers)()
    assert next(plain_stream) == 0
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(int)
    plain_stream.close()

    assert breaker.is_closed
    assert breaker.in_flight == 0


async def test_a_retry_inside_the_handler_is_a_call_of_its_own() -> None:
    """Its exception has the first one as its context, but is a separate failure."""
    breaker = make_breaker(failure_threshold=5)
    guarded = breaker.protected(down)

    async def retry() -> None:
        try:
            await guarded()
        except DownError:
            await guarded()

    with pytest.raises(DownError):
        await retry()
    assert breaker.total_failures == 2


def test_two_breakers_each_count_one_failure() -> None:
    """Counting by one breaker does not affect the other."""
    outer, inner = make_breaker(failure_threshold=5), make_breaker(failure_threshold=5)
    with pytest.raises(DownError), outer, inner, outer:
        raise DownError
    assert (outer.total_failures, inner.total_failures) == (1, 1)


async def test_a_nested_probe_counts_once() -> None:
    """Two calls close the circuit."""
    breaker = half_opened(FakeClock(), success_threshold=2, half_open_max_calls=1)

    @breaker.protected
    async def inner() -> str:
        return "fine"

    for _ in range(2):
        assert breaker.is_half_open
        async with breaker:
            assert await inner() == "fine"
    assert breaker.is_closed
    assert breaker.in_flight == 0


@pytest.mark.parametrize("has_gil", [True, False])
async def test_a_nested_probe_that_fails_opens_the_circuit_again(
    has_gil: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome of the whole call is that of the probe, with and without short cuts."""
    monkeypatch.setattr(lockfree, "GIL_ENABLED", has_gil)
    breaker = half_opened(FakeClock(), half_open_max_calls=1)
    with pytest.raises(DownError):
        await nested_functions(breaker)()
    assert breaker.is_open
    assert breaker.total_failures == 6


@pytest.mark.parametrize("nest", NESTED)
async def test_every_nested_probe_that_fails_opens_the_circuit_again(
    nest: Callable[[CircuitBreaker], Callable[[], Awaitable[None]]],
) -> None:
    """Each counts as one failure, even if all failures are of one type."""
    clock = FakeClock()
    breaker = half_opened(clock, failure_threshold=1)
    call = nest(breaker)
    for failures in (2, 3, 4):
        with pytest.raises(DownError):
            await call()
        assert breaker.is_open
        assert breaker.total_failures == failures
        clock.advance(breaker.get_metrics()["retry_after"])
    assert breaker.in_flight == 0
