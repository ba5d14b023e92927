"""A call whose object is dropped before it ends is neutral, and its probe slot becomes free."""

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from threading import Event
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import RunningCall, half_opened, make_breaker


def dropped_future(breaker: CircuitBreaker, loop: asyncio.AbstractEventLoop) -> None:
    """A future of asyncio that nothing will ever set."""
    breaker.protected(loop.create_future)()


def dropped_future_of_call_sync(breaker: CircuitBreaker, loop: asyncio.AbstractEventLoop) -> None:
    """The same, through `call_sync`."""
    breaker.call_sync(loop.create_future)


def dropped_executor_future(breaker: CircuitBreaker, _: asyncio.AbstractEventLoop) -> None:
    """A future of an executor that has lost it."""
    breaker.call_sync(Future)


def dropped_exit_stack(breaker: CircuitBreaker, _: asyncio.AbstractEventLoop) -> None:
    """An exit stack that was never left."""
    ExitStack().enter_context(breaker)


def dropped_async_exit_stack(breaker: CircuitBreaker, loop: asyncio.AbstractEventLoop) -> None:
    """The same, of an asynchronous one."""
    loop.run_until_complete(AsyncExitStack().enter_async_context(breaker))


def stream_of_a_closed_loop(breaker: CircuitBreaker, loop: asyncio.AbstractEventLoop) -> None:
    """A stream that was left half way, which Python cannot close without its loop."""

    @breaker.protected
    async def numbers() -> AsyncGenerator[int]:
        yield 1

    async def take_one(stream: AsyncGenerator[int]) -> int:
        return await anext(stream)

    stream = numbers()
    assert loop.run_until_complete(take_one(stream)) == 1
    loop.close()


def context_manager_of_a_closed_loop(
    breaker: CircuitBreaker, loop: asyncio.AbstractEventLoop
) -> None:
    """A context manager that was entered, and not left before the loop was closed."""

    @asynccontextmanager
    async def session() -> AsyncIterator[None]:
        async with breaker:
            yield

    entered = session()
    loop.run_until_complete(entered.__aenter__())
    loop.close()


def task_of_a_closed_loop(breaker: CircuitBreaker, loop: asyncio.AbstractEventLoop) -> None:
    """A task that was still waiting in its block when the loop was closed."""

    async def wait() -> None:
        async with breaker:
            await asyncio.Event().wait()

    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    assert breaker.in_flight == 1
    loop.close()
    # asyncio would log that it is pending.
    task._log_destroy_pending = False  # type: ignore[attr-defined]


DROPPED: list[Callable[[CircuitBreaker, asyncio.AbstractEventLoop], None]] = [
    dropped_future,
    dropped_future_of_call_sync,
    dropped_executor_future,
    dropped_exit_stack,
    dropped_async_exit_stack,
    stream_of_a_closed_loop,
    context_manager_of_a_closed_loop,
    task_of_a_closed_loop,
]


@pytest.mark.parametrize("drop", DROPPED)
@pytest.mark.parametrize("parameters", [{}, {"slow_call_duration": 10.0}])
def test_a_dropped_probe_makes_room_for_another(
    drop: Callable[[CircuitBreaker, asyncio.AbstractEventLoop], None], parameters: dict[str, Any]
) -> None:
    """It does so at once, rather than after `probe_timeout`, and counts nothing."""
    clock = FakeClock()
    breaker = half_opened(clock, half_open_max_calls=1, success_threshold=1, **parameters)
    failures = breaker.total_failures
    loop = asyncio.new_event_loop()
    drop(breaker, loop)
    loop.close()
    gc.collect()
    assert breaker.in_flight == 0
    assert (breaker.total_failures, breaker.total_successes) == (failures, 0)
    assert breaker.call_sync(str) == ""
    assert breaker.is_closed


@pytest.mark.parametrize("drop", [dropped_future, dropped_executor_future])
def test_a_dropped_call_is_not_in_flight(
    drop: Callable[[CircuitBreaker, asyncio.AbstractEventLoop], None],
) -> None:
    """This also applies while the circuit is closed."""
    breaker = make_breaker()
    loop = asyncio.new_event_loop()
    drop(breaker, loop)
    loop.close()
    gc.collect()
    assert (breaker.in_flight, breaker.total_successes) == (0, 0)


def test_a_future_of_a_closed_loop_takes_no_slot() -> None:
    """Its outcome can no longer be seen, even if its caller keeps it and sets it."""
    clock = FakeClock()
    breaker = half_opened(clock, half_open_max_calls=1, success_threshold=2)
    loop = asyncio.new_event_loop()
    future = breaker.protected(loop.create_future)()
    loop.close()
    breaker.call_sync(str)
    clock.advance(breaker.probe_timeout)
    assert breaker.is_half_open
    with pytest.raises(RuntimeError, match="closed"):
        future.set_result("late")
    breaker.call_sync(str)
    assert breaker.is_closed
    assert breaker.in_flight == 0


def test_work_that_an_executor_still_does_is_not_dropped() -> None:
    """The executor keeps the future until the work has ended."""
    breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)
    may_end = Event()
    with ThreadPoolExecutor(1) as executor:
        breaker.call_sync(executor.submit, may_end.wait)
        gc.collect()
        assert breaker.in_flight == 1
        may_end.set()
    assert breaker.is_closed


async def test_a_task_that_goes_on_is_not_dropped() -> None:
    """The loop keeps what the task waits for, and that keeps the task."""
    breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)

    async def work() -> None:
        await asyncio.sleep(0)

    breaker.call_sync(asyncio.ensure_future, work())
    gc.collect()
    assert breaker.in_flight == 1
    for _ in range(3):
        await asyncio.sleep(0)
    assert breaker.is_closed


async def test_awaitables_that_are_never_awaited_take_no_slot() -> None:
    """They take their permit when they are awaited."""
    breaker = half_opened(FakeClock(), half_open_max_calls=1)

    class Request(Awaitable[None]):
        def __await__(self) -> Any:
            yield

    request: Callable[[], Any] = breaker.protected(Request)
    request().close()
    waiting = request()
    waiting.send(None)
    assert breaker.in_flight == 1
    del waiting
    assert breaker.in_flight == 0


def test_a_block_that_is_kept_keeps_its_slot() -> None:
    """Only dropping it makes room."""
    breaker = half_opened(FakeClock(), half_open_max_calls=1)
    call = RunningCall(breaker)
    gc.collect()
    assert breaker.in_flight == 1
    call.succeed()
    assert breaker.in_flight == 0
