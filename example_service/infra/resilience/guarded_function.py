"""`@breaker.protected`: a function of the same kind whose every call is guarded."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from example_service.infra.resilience.circuit_breaker import CircuitBreaker
    from example_service.infra.resilience.circuit_state import Permit

P = ParamSpec("P")
R = TypeVar("R")


def guarded(breaker: "CircuitBreaker", func: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that the breaker guards every call; see `CircuitBreaker.protected`."""
    if not callable(func):
        raise TypeError(f"only functions can be guarded, not {func!r}")
    if _is_kind(func, inspect.isgeneratorfunction) or _is_kind(func, inspect.isasyncgenfunction):
        raise TypeError(f"generator functions cannot be guarded: {func!r}")
    if _is_kind(func, inspect.iscoroutinefunction):
        return cast("Callable[P, R]", _guarded_async(breaker, cast("Callable[P, Any]", func)))
    return _guarded_sync(breaker, func)


def _guarded_async(
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


def _guarded_sync(breaker: "CircuitBreaker", func: Callable[P, R]) -> Callable[P, R]:
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
            # A plain decorator around a coroutine function: the outcome is not known yet.
            return cast("R", _awaited(breaker, permit, cast("Awaitable[Any]", result)))
        if permit.quiet:
            next(machine.successes)
        else:
            settle_success(permit, result)
        return result

    return guarded_call


async def _awaited(breaker: "CircuitBreaker", permit: "Permit", awaitable: Awaitable[R]) -> R:
    """Await what a plain function returned, and settle its permit with the outcome."""
    try:
        result = await awaitable
    except BaseException as error:
        breaker._settle_error(permit, error)
        raise
    breaker._settle_success(permit, result)
    return result


def _is_kind(func: Callable[..., Any], is_kind: Callable[[object], bool]) -> bool:
    """Whether a function, or the `__call__` of an object, is of a kind that `inspect` knows."""
    return is_kind(func) or is_kind(getattr(func, "__call__", None))  # noqa: B004
