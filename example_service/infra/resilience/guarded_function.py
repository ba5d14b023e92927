"""`@breaker.protected`: a function of the same kind whose every call is guarded.

A coroutine function, an async generator function and a generator function are recognized by what
they are. For every other function the object that it returns decides; see `follow`.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from enum import Enum
from types import CoroutineType, GeneratorType
from typing import Any, ParamSpec, TypeVar, cast

from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.nested_calls import leave_probe
from example_service.infra.resilience.rules.phases import Permit

P = ParamSpec("P")
R = TypeVar("R")


class Continuation(Enum):
    """What a call that has returned is still doing."""

    FUTURE = "running in a future"
    AWAITABLE = "waiting to be awaited"
    STREAM = "yielding items"


def guarded(guard: Guard, func: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that every call is guarded; see `CircuitBreaker.protected`."""
    if isinstance(func, (staticmethod, classmethod)):
        return cast("Callable[P, R]", type(func)(guarded(guard, func.__func__)))
    if not callable(func):
        raise TypeError(f"only functions can be guarded, not {func!r}")
    if _is_kind(func, inspect.iscoroutinefunction):
        return cast("Callable[P, R]", _guarded_coroutine(guard, cast("Callable[P, Any]", func)))
    if _is_kind(func, inspect.isasyncgenfunction):
        stream = _guarded_async_generator(guard, cast("Callable[P, Any]", func))
        return cast("Callable[P, R]", stream)
    if _is_kind(func, inspect.isgeneratorfunction):
        return cast("Callable[P, R]", _guarded_generator(guard, cast("Callable[P, Any]", func)))
    return _guarded_function(guard, func)


def _guarded_coroutine(guard: Guard, func: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    machine, enter = guard.machine, guard.enter
    settle, settle_result = guard.settle, guard.settle_result

    @functools.wraps(func)
    async def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = enter()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            settle(permit, error)
            raise
        if permit.quiet:
            next(machine.successes)
        else:
            settle_result(permit, result)
        return result

    return guarded_call


def _guarded_function(guard: Guard, func: Callable[P, R]) -> Callable[P, R]:
    machine, enter = guard.machine, guard.enter
    settle, settle_result = guard.settle, guard.settle_result

    @functools.wraps(func)
    def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = enter()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            settle(permit, error)
            raise
        if continuation(result.__class__) is not None:  # type: ignore[arg-type]
            return cast("R", follow(guard, permit, result))
        if permit.quiet:
            next(machine.successes)
        else:
            settle_result(permit, result)
        return result

    return guarded_call


def _guarded_async_generator(
    guard: Guard, func: Callable[P, AsyncGenerator[R, Any]]
) -> Callable[P, AsyncGenerator[R, Any]]:
    @functools.wraps(func)
    async def guarded_stream(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
        stream = func(*args, **kwargs)
        permit = guard.acquire()
        thrown: BaseException | None = None
        try:
            item = await anext(stream)
            while True:
                try:
                    sent = yield item
                except GeneratorExit as error:
                    thrown = error
                    await stream.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - It is thrown on.
                    thrown = error
                    item = await stream.athrow(error)
                    thrown = None
                else:
                    item = await stream.asend(sent)
        except StopAsyncIteration:
            guard.succeed(permit)
        except BaseException as error:
            _settle_stream(guard, permit, error, thrown)
            raise

    return guarded_stream


def _guarded_generator(
    guard: Guard, func: Callable[P, Generator[Any, Any, R]]
) -> Callable[P, Generator[Any, Any, R]]:
    @functools.wraps(func)
    def guarded_stream(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        stream = func(*args, **kwargs)
        permit = guard.acquire()
        thrown: BaseException | None = None
        try:
            item = next(stream)
            while True:
                try:
                    sent = yield item
                except GeneratorExit as error:
                    thrown = error
                    stream.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - It is thrown on.
                    thrown = error
                    item = stream.throw(error)
                    thrown = None
                else:
                    item = stream.send(sent)
        except StopIteration as end:
            guard.succeed(permit)
            return cast("R", end.value)
        except BaseException as error:
            _settle_stream(guard, permit, error, thrown)
            raise

    return guarded_stream


def _settle_stream(
    guard: Guard, permit: Permit, error: BaseException, thrown: BaseException | None
) -> None:
    """Settle a stream that raised.

    What its consumer threw in says nothing about the other side if it comes back as the same
    object: FastAPI throws the error of an endpoint into its dependencies. To close it, Python
    throws in a GeneratorExit; the consumer has had an item then, so the other side works.
    """
    if error is not thrown:
        guard.settle(permit, error)
    elif isinstance(error, GeneratorExit):
        guard.succeed(permit)
    else:
        guard.release(permit)


# Cached, because asking takes longer than everything else after a call; bounded, because classes
# can be created at run time.
@functools.lru_cache(maxsize=256)
def continuation(kind: type) -> Continuation | None:
    """How a call that returned an object of this class goes on; None if it has ended."""
    if hasattr(kind, "add_done_callback"):
        # Where there is such a future both are imported already; other programs do not pay for it.
        import asyncio  # noqa: PLC0415
        import concurrent.futures  # noqa: PLC0415

        if issubclass(kind, asyncio.Future | concurrent.futures.Future):
            return Continuation.FUTURE
    if issubclass(kind, Awaitable):
        return Continuation.AWAITABLE
    if issubclass(kind, Generator | AsyncGenerator):
        return Continuation.STREAM
    return None


def follow(guard: Guard, permit: Permit, result: Any) -> Any:
    """Guard a call that goes on in the object that it returned, until it ends.

    - A future is the call: its outcome counts when it has one, at once if it is done.
    - Any other awaitable is guarded from the moment it is awaited. If it never is, there is no
      outcome; so it takes a permit of its own.
    - A generator or async generator takes a permit when its first item is requested.

    Returns:
        What the caller gets instead of `result`.
    """
    if continuation(result.__class__) is Continuation.FUTURE:
        leave_probe(permit)
        _settle_when_done(guard, permit, result)
        return result
    guard.release(permit)
    if is_awaitable(result):
        return _await(guard, result)
    if isinstance(result, AsyncGenerator):
        return _guarded_async_generator(guard, lambda: result)()
    return _guarded_generator(guard, lambda: result)()


def is_awaitable(result: object) -> bool:
    """Whether an object that goes on is awaited, rather than iterated or left to run."""
    if isinstance(result, GeneratorType):
        return bool(result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    return isinstance(result, Awaitable)


def _settle_when_done(guard: Guard, permit: Permit, future: Any) -> None:
    def settle(done: Any) -> None:
        if done.cancelled():
            guard.release(permit)
        elif (error := done.exception()) is not None:
            guard.settle(permit, error)
        else:
            guard.settle_result(permit, done.result())

    if future.done():
        settle(future)
    else:
        future.add_done_callback(settle)


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


def _is_kind(func: Callable[..., Any], is_kind: Callable[[object], bool]) -> bool:
    """Whether a function, or the `__call__` of an object, is of a kind that `inspect` knows."""
    return is_kind(func) or is_kind(getattr(func, "__call__", None))  # noqa: B004
