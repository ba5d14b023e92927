"""`@breaker.protected`: a function of the same kind whose every call is guarded."""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from example_service.infra.resilience.circuit_breaker import CircuitBreaker
    from example_service.infra.resilience.rules.circuit_state import Permit

P = ParamSpec("P")
R = TypeVar("R")


def guarded(breaker: "CircuitBreaker", func: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that the breaker guards every call; see `CircuitBreaker.protected`."""
    if not callable(func):
        raise TypeError(f"only functions can be guarded, not {func!r}")
    if _is_kind(func, inspect.iscoroutinefunction):
        return cast("Callable[P, R]", _guarded_coroutine(breaker, cast("Callable[P, Any]", func)))
    if _is_kind(func, inspect.isasyncgenfunction):
        return cast(
            "Callable[P, R]", _guarded_async_generator(breaker, cast("Callable[P, Any]", func))
        )
    if _is_kind(func, inspect.isgeneratorfunction):
        return cast("Callable[P, R]", _guarded_generator(breaker, cast("Callable[P, Any]", func)))
    return _guarded_function(breaker, func)


def _guarded_coroutine(
    breaker: "CircuitBreaker", func: Callable[P, Awaitable[R]]
) -> Callable[P, Awaitable[R]]:
    machine, admit = breaker._machine, breaker._admit
    settle_error, settle_success = breaker._settle_error, breaker._settle_success

    @functools.wraps(func)
    async def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = admit()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            settle_error(permit, error)
            raise
        if permit.quiet:
            next(machine.successes)
        else:
            settle_success(permit, result)
        return result

    return guarded_call


def _guarded_function(breaker: "CircuitBreaker", func: Callable[P, R]) -> Callable[P, R]:
    machine, admit = breaker._machine, breaker._admit
    settle_error, settle_success = breaker._settle_error, breaker._settle_success

    @functools.wraps(func)
    def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = admit()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            settle_error(permit, error)
            raise
        if result.__class__ is CoroutineType:
            # A plain decorator around a coroutine function. The outcome is not known yet, and a
            # coroutine that nobody starts has none: it asks for a permit of its own.
            breaker._release(permit)
            return cast("R", _awaited(breaker, cast("CoroutineType[Any, Any, Any]", result)))
        if hasattr(type(result), "add_done_callback") and is_future(result):
            settle_when_done(breaker, permit, result)
        elif permit.quiet:
            next(machine.successes)
        else:
            settle_success(permit, result)
        return result

    return guarded_call


def _guarded_async_generator(
    breaker: "CircuitBreaker", func: Callable[P, AsyncGenerator[R, Any]]
) -> Callable[P, AsyncGenerator[R, Any]]:
    @functools.wraps(func)
    async def guarded_stream(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
        stream = func(*args, **kwargs)
        permit = breaker._take_permit()
        try:
            item = await anext(stream)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await stream.aclose()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - It is thrown on.
                    item = await stream.athrow(thrown)
                else:
                    item = await stream.asend(sent)
        except StopAsyncIteration:
            breaker._succeed(permit)
        except BaseException as error:
            breaker._settle_error(permit, error)
            raise

    return guarded_stream


def _guarded_generator(
    breaker: "CircuitBreaker", func: Callable[P, Generator[Any, Any, R]]
) -> Callable[P, Generator[Any, Any, R]]:
    @functools.wraps(func)
    def guarded_stream(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        stream = func(*args, **kwargs)
        permit = breaker._take_permit()
        try:
            result = yield from stream
        except BaseException as error:
            breaker._settle_error(permit, error)
            raise
        breaker._succeed(permit)
        return result

    return guarded_stream


def is_future(result: object) -> bool:
    """Whether a call goes on in a future of asyncio or of an executor.

    Other libraries have things with callbacks of their own, whose outcome is asked for differently.
    """
    # Where there is such a future, both are imported already; nobody else has to pay for them.
    import asyncio  # noqa: PLC0415
    import concurrent.futures  # noqa: PLC0415

    return isinstance(result, asyncio.Future | concurrent.futures.Future)


def settle_when_done(breaker: "CircuitBreaker", permit: "Permit", future: Any) -> None:
    """Account for a call that goes on in a future when it ends."""

    def settle(done: Any) -> None:
        if done.cancelled():
            breaker._release(permit)
        elif (error := done.exception()) is not None:
            breaker._settle_error(permit, error)
        else:
            breaker._settle_success(permit, done.result())

    future.add_done_callback(settle)


async def _awaited(breaker: "CircuitBreaker", coroutine: "CoroutineType[Any, Any, R]") -> R:
    """Guard a coroutine from its start to its end."""
    try:
        return await breaker.call(lambda: coroutine)
    finally:
        coroutine.close()


def _is_kind(func: Callable[..., Any], is_kind: Callable[[object], bool]) -> bool:
    """Whether a function, or the `__call__` of an object, is of a kind that `inspect` knows."""
    return is_kind(func) or is_kind(getattr(func, "__call__", None))  # noqa: B004
