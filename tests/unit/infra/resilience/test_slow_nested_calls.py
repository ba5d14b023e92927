"""`slow_call_duration` of calls inside a block of the same breaker: together they are one call."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import DownError, RunningCall, make_breaker, succeed


async def _function_in_block(breaker: CircuitBreaker, work: Callable[[], Awaitable[None]]) -> None:
    async with breaker:
        await breaker.protected(work)()


async def _call_in_block(breaker: CircuitBreaker, work: Callable[[], Awaitable[None]]) -> None:
    with breaker:
        await breaker.call(work)


async def _blocks_in_block(breaker: CircuitBreaker, work: Callable[[], Awaitable[None]]) -> None:
    async with breaker, breaker:
        with breaker:
            await breaker.protected(work)()


async def _task_in_block(breaker: CircuitBreaker, work: Callable[[], Awaitable[None]]) -> None:
    async with breaker, asyncio.TaskGroup() as group:
        group.create_task(breaker.call(work))


NESTED = [_function_in_block, _call_in_block, _blocks_in_block, _task_in_block]


@pytest.mark.parametrize("nested", NESTED)
class TestNested:
    """A call inside a guarded block of the same breaker is part of the block."""

    async def test_one_that_hangs_is_counted_once(self, nested: Any) -> None:
        """This applies before it ends, and after its caller gave up."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=2.0, failure_threshold=3)
        hanging = []
        for count in range(3):
            assert breaker.is_closed
            assert breaker.total_failures == count
            hanging.append(asyncio.create_task(nested(breaker, asyncio.Event().wait)))
            for _ in range(5):
                await asyncio.sleep(0)
            clock.advance(2.0)
        assert breaker.is_open
        assert breaker.total_failures == 3
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert breaker.total_failures == 3
        assert breaker.in_flight == 0

    @pytest.mark.parametrize("error", [None, DownError()])
    async def test_one_that_ends_late_is_counted_once(
        self, nested: Any, error: DownError | None
    ) -> None:
        """There is no look at the breaker in the meantime."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=2.0)

        async def work() -> None:
            clock.advance(3.0)
            if error is not None:
                raise error

        with contextlib.suppress(DownError, ExceptionGroup):
            await nested(breaker, work)
        assert breaker.total_failures == 1
        assert breaker.total_successes == 0
        assert breaker.in_flight == 0

    async def test_one_that_fails_after_its_block_was_counted_adds_nothing(
        self, nested: Any
    ) -> None:
        """The block became overdue first."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=2.0)

        async def work() -> None:
            clock.advance(2.0)
            assert breaker.total_failures == 1
            raise DownError

        with contextlib.suppress(DownError, ExceptionGroup):
            await nested(breaker, work)
        assert breaker.total_failures == 1
        assert breaker.in_flight == 0

    async def test_one_that_ends_in_time_is_not_overdue(self, nested: Any) -> None:
        """It does not affect the next call in its context."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=2.0)
        await nested(breaker, _nothing)
        assert breaker.total_failures == 0
        assert breaker.in_flight == 0
        task = asyncio.create_task(breaker.protected(asyncio.Event().wait)())
        await asyncio.sleep(0)
        clock.advance(2.0)
        assert breaker.total_failures == 1
        task.cancel()


async def _nothing() -> None:
    """A call that ends at once."""


async def test_calls_beside_a_block_are_calls_of_their_own() -> None:
    """Only calls inside the block are part of it."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)
    block = RunningCall(breaker)
    tasks = [asyncio.create_task(breaker.protected(asyncio.Event().wait)()) for _ in range(2)]
    await asyncio.sleep(0)
    clock.advance(2.0)
    assert breaker.total_failures == 3
    block.succeed()
    for task in tasks:
        task.cancel()


async def test_a_call_that_outlives_its_block_becomes_overdue_by_itself() -> None:
    """A task that the block started may continue after the block."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)
    async with breaker:
        task = asyncio.create_task(breaker.protected(asyncio.Event().wait)())
        await asyncio.sleep(0)
        clock.advance(1.0)
    assert breaker.total_successes == 1
    clock.advance(1.0)
    assert breaker.total_failures == 1
    task.cancel()


async def test_a_block_that_another_task_left_is_over() -> None:
    """A call in the context that entered the block is no longer inside it."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)
    stack = contextlib.ExitStack()
    stack.enter_context(breaker)
    await asyncio.create_task(_left(stack))
    clock.advance(1.0)
    hanging = breaker.protected(asyncio.Event().wait)()
    task = asyncio.create_task(hanging)
    await asyncio.sleep(0)
    clock.advance(2.0)
    assert breaker.total_successes == 1
    assert breaker.total_failures == 1
    task.cancel()


async def _left(stack: contextlib.ExitStack) -> None:
    stack.close()


async def test_a_call_inside_a_block_is_a_part_of_it_also_when_time_has_to_act_first() -> None:
    """The breaker looks at its clock again before it admits the call."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=2.0)
    succeed(breaker)
    clock.advance(1.0)
    async with breaker:
        clock.advance(1.0)
        task = asyncio.create_task(breaker.call(asyncio.Event().wait))
        await asyncio.sleep(0)
        clock.advance(2.0)
        assert breaker.total_failures == 1
        task.cancel()
