"""`@breaker.protected`: a function of the same kind whose every call is guarded.

Coroutine functions, async generator functions and generator functions are recognized when they are
decorated. For every other function, the returned object decides; see `continuation`.

A guarded function should cost little more than the call itself, and each further method call would
double the overhead. So these wrappers contain the lock-free steps of `Guard.enter` and
`Guard.succeed`. They call the guard only when a step needs more: when the circuit is not closed,
when a call fails, or when something is due. There are two wrappers for each kind of function,
because most breakers need neither the clock nor an object for each call:

- The plain wrapper takes the closed period as its permit and counts the success. It checks the
  result and reads the clock only if the rules need that.
- The timed wrapper is for `slow_call_duration` and for listeners of single calls. It records when
  the call started, and lists the call among the running ones until it ends.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from math import inf
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar, cast

from example_service.infra.resilience.continuation import continuation, guard_continuation
from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.guarded_stream import (
    guarded_async_generator,
    guarded_generator,
)
from example_service.infra.resilience.nested_calls import marked_calls
from example_service.infra.resilience.rules.phases import STALE, Permit, TimedCall

P = ParamSpec("P")
R = TypeVar("R")


def guarded(guard: Guard, func: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that every call is guarded; see `CircuitBreaker.protected`."""
    if isinstance(func, (staticmethod, classmethod)):
        return cast("Callable[P, R]", type(func)(guarded(guard, func.__func__)))
    if not callable(func):
        raise _refusal(func)
    is_timed = guard.machine.is_timed
    if is_kind(func, inspect.iscoroutinefunction):
        wrap = _timed_coroutine if is_timed else _coroutine
        return cast("Callable[P, R]", wrap(guard, cast("Callable[P, Any]", func)))
    if is_kind(func, inspect.isasyncgenfunction):
        stream = guarded_async_generator(guard, cast("Callable[P, Any]", func))
        return cast("Callable[P, R]", stream)
    if is_kind(func, _is_generator_function):
        return cast("Callable[P, R]", guarded_generator(guard, cast("Callable[P, Any]", func)))
    return _timed_function(guard, func) if is_timed else _function(guard, func)


def _coroutine(guard: Guard, func: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    machine, is_failed_result = guard.machine, guard.classifier.is_failed_result

    @functools.wraps(func)
    async def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = guard.admit()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            guard.settle(permit, error)
            raise
        if permit.counts_only:
            next(machine.successes)
            return result
        if is_failed_result is not None:
            try:
                is_passed = not is_failed_result(result)
            except BaseException:
                guard.release(permit)
                raise
            if not is_passed:
                guard.fail_result(permit, result)
                return result
        if permit.lock_free and (machine.due == inf or guard.clock() < machine.due):
            next(machine.successes)
        else:
            guard.succeed(permit)
        return result

    return guarded_call


def _function(guard: Guard, func: Callable[P, R]) -> Callable[P, R]:
    machine, is_failed_result = guard.machine, guard.classifier.is_failed_result

    @functools.wraps(func)
    def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = guard.admit()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            guard.settle(permit, error)
            raise
        if continuation(result.__class__) is not None:  # type: ignore[arg-type]
            return cast("R", guard_continuation(guard, permit, result))
        if permit.counts_only:
            next(machine.successes)
            return result
        if is_failed_result is not None:
            try:
                is_passed = not is_failed_result(result)
            except BaseException:
                guard.release(permit)
                raise
            if not is_passed:
                guard.fail_result(permit, result)
                return result
        if permit.lock_free and (machine.due == inf or guard.clock() < machine.due):
            next(machine.successes)
        else:
            guard.succeed(permit)
        return result

    return guarded_call


def _timed_coroutine(guard: Guard, func: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    machine, running = guard.machine, guard.machine.running
    has_listener = guard.has_success_listener
    classifies_results = guard.classifier.is_failed_result is not None

    @functools.wraps(func)
    async def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        closed, started = None, guard.clock()
        if started < machine.due and not (machine.has_blocks and marked_calls()):
            closed = next(machine.admissions, None)
        if closed is None:
            # Not lock-free, so that the guard settles the call.
            closed, call = STALE, cast("TimedCall", guard.admit())
        else:
            call = TimedCall()
            call.phase, call.started = closed, started
            if running is not None:
                running[call] = started
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            guard.settle(call, error)
            raise
        if classifies_results and guard.settle_failed_result(call, result):
            return result
        ended = guard.clock()
        if (
            closed.lock_free
            and ended < machine.due
            and (running is None or running.pop(call, None) is not None)
        ):
            next(machine.successes)
            if has_listener:
                guard.notify_success(ended - started)
        else:
            guard.succeed(call)
        return result

    return guarded_call


def _timed_function(guard: Guard, func: Callable[P, R]) -> Callable[P, R]:
    machine, running = guard.machine, guard.machine.running
    has_listener = guard.has_success_listener
    classifies_results = guard.classifier.is_failed_result is not None

    @functools.wraps(func)
    def guarded_call(*args: P.args, **kwargs: P.kwargs) -> R:
        closed, started = None, guard.clock()
        if started < machine.due and not (machine.has_blocks and marked_calls()):
            closed = next(machine.admissions, None)
        if closed is None:
            # Not lock-free, so that the guard settles the call.
            closed, call = STALE, cast("TimedCall", guard.admit())
        else:
            call = TimedCall()
            call.phase, call.started = closed, started
            if running is not None:
                running[call] = started
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            guard.settle(call, error)
            raise
        if continuation(result.__class__) is not None:  # type: ignore[arg-type]
            return cast("R", guard_continuation(guard, call, result))
        if classifies_results and guard.settle_failed_result(call, result):
            return result
        ended = guard.clock()
        if (
            closed.lock_free
            and ended < machine.due
            and (running is None or running.pop(call, None) is not None)
        ):
            next(machine.successes)
            if has_listener:
                guard.notify_success(ended - started)
        else:
            guard.succeed(call)
        return result

    return guarded_call


def _refusal(func: object) -> TypeError:
    if isinstance(func, CoroutineType):
        func.close()
    # For a property and the like, the function below it can be guarded.
    is_descriptor = hasattr(type(func), "__get__")
    way = (
        "put this decorator below the other one" if is_descriptor else "pass it without calling it"
    )
    return TypeError(f"only functions can be guarded, not {func!r}: {way}")


def is_kind(func: Callable[..., Any], inspected: Callable[[object], bool]) -> bool:
    """Whether a function, or the `__call__` of an object, is of a kind that `inspect` knows."""
    return inspected(func) or inspected(getattr(func, "__call__", None))  # noqa: B004


def _is_generator_function(func: object) -> bool:
    """Whether calls return a generator to iterate, rather than one to await (`types.coroutine`)."""
    while isinstance(func, functools.partial):
        func = func.func
    flags: int = getattr(getattr(func, "__code__", None), "co_flags", 0)
    return inspect.isgeneratorfunction(func) and not flags & inspect.CO_ITERABLE_COROUTINE
