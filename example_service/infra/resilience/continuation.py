"""Calls that continue in the object that they return: a future, an awaitable or a generator."""

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Generator
from contextlib import (
    _AsyncGeneratorContextManager,
    _GeneratorContextManager,
    asynccontextmanager,
)
from enum import Enum
from types import CoroutineType, GeneratorType, TracebackType
from typing import Any

from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.guarded_stream import (
    guarded_async_generator,
    guarded_generator,
)
from example_service.infra.resilience.nested_calls import unmark_call
from example_service.infra.resilience.pending_call import PendingCall
from example_service.infra.resilience.rules.phases import Permit, TimedCall


class Continuation(Enum):
    """What a call that has returned is still doing."""

    FUTURE = "running in a future"
    AWAITABLE = "waiting to be awaited"
    STREAM = "yielding items"
    BLOCK = "waiting to be entered"


_BLOCKS = (_GeneratorContextManager, _AsyncGeneratorContextManager)


# Cached, because these checks would take longer than all other steps after a call; bounded, because
# classes can be created at run time.
@functools.lru_cache(maxsize=256)
def continuation(kind: type) -> Continuation | None:
    """How a call that returned an object of this class continues; None if it has ended."""
    if hasattr(kind, "add_done_callback"):
        # Imported here, because programs without futures should not pay for these modules.
        import asyncio  # noqa: PLC0415
        import concurrent.futures  # noqa: PLC0415

        if issubclass(kind, asyncio.Future | concurrent.futures.Future):
            return Continuation.FUTURE
    if issubclass(kind, _BLOCKS):
        return Continuation.BLOCK
    if issubclass(kind, Awaitable):
        return Continuation.AWAITABLE
    if issubclass(kind, Generator | AsyncGenerator):
        return Continuation.STREAM
    return None


def guard_continuation(guard: Guard, permit: Permit, result: Any) -> Any:
    """Guard a call that continues in the object that it returned, until it ends.

    - A future counts when it is done, which may be at once.
    - Any other awaitable takes a new permit when it is awaited, because it may never be awaited. If
      it is entered instead, such as a request of aiohttp in `async with`, it is guarded until the
      end of its block.
    - A generator or async generator takes a permit when its first item is requested.

    Returns:
        What the caller gets instead of `result`.

    Raises:
        TypeError: The object is a context manager made from a generator, whose block cannot be
            guarded.
    """
    continued = continuation(result.__class__)
    if continued is Continuation.FUTURE:
        unmark_call(permit)
        call = _FutureCall(guard, permit)
        if result.done():
            call(result)
        else:
            if isinstance(permit, TimedCall) and hasattr(result, "get_loop"):
                permit.is_lost = result.get_loop().is_closed
            result.add_done_callback(call)
        return result
    guard.release(permit)
    if continued is Continuation.BLOCK:
        raise TypeError(
            f"the block of {result.func!r} cannot be guarded from outside: "
            "put the decorator of the breaker below @contextmanager or @asynccontextmanager"
        )
    if is_awaitable(result):
        has_block = hasattr(result.__class__, "__aenter__")
        return _AwaitableBlock(guard, result) if has_block else _await(guard, result)
    if isinstance(result, AsyncGenerator):
        return guarded_async_generator(guard, lambda: result)()
    return guarded_generator(guard, lambda: result)()


def is_awaitable(result: object) -> bool:
    """Whether a returned object can be awaited, including generators of `types.coroutine`."""
    if isinstance(result, GeneratorType):
        return bool(result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    return isinstance(result, Awaitable)


class _FutureCall(PendingCall):
    """The callback of a future. The future keeps it alive until it is done or dropped."""

    __slots__ = ()

    def __call__(self, future: Any) -> None:
        if future.cancelled():
            self.release()
        elif (error := future.exception()) is not None:
            self.settle(error)
        else:
            self._guard.settle_result(self._permits.pop(), future.result())


async def _await(guard: Guard, awaitable: Any) -> Any:
    try:
        permit = guard.enter()
        try:
            result = await awaitable
        except BaseException as error:
            guard.settle(permit, error)
            raise
        guard.settle_result(permit, result)
        return result
    finally:
        if isinstance(awaitable, CoroutineType):
            awaitable.close()


class _AwaitableBlock(Coroutine[Any, Any, Any]):
    """Guards an object that is either awaited or entered."""

    def __init__(self, guard: Guard, result: Any) -> None:
        self._call = _await(guard, result)
        self._block = _block(guard, result)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._call.__await__()

    def send(self, value: Any) -> Any:
        return self._call.send(value)

    def throw(self, *error: Any) -> Any:
        return self._call.throw(*error)

    def close(self) -> None:
        self._call.close()

    async def __aenter__(self) -> Any:
        self._call.close()
        return await self._block.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(exc_type, exc, traceback)


@asynccontextmanager
async def _block(guard: Guard, result: Any) -> AsyncIterator[Any]:
    call = PendingCall(guard, guard.enter())
    try:
        async with result as entered:
            yield entered
    except BaseException as error:
        call.settle(error)
        raise
    call.succeed()
