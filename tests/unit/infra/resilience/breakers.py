"""Breakers in a given state, and all forms of calls, for the tests in this folder."""

import contextlib
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, ClassVar, TypeAlias

from example_service.infra.resilience import CircuitBreaker
from example_service.infra.resilience.testing import FakeClock

RECOVERY_TIMEOUT = 60.0


class DownError(Exception):
    """The error of a dependency that is down."""


class BadRequestError(Exception):
    """The error of a working dependency for an invalid request."""


def make_breaker(clock: FakeClock | None = None, **parameters: Any) -> CircuitBreaker:
    """A closed breaker outside any registry, for which only `DownError` is a failure."""
    given = {"expected_exception": DownError, "registry": None, **parameters}
    return CircuitBreaker("search", clock=clock or FakeClock(), **given)


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    """Make calls that succeed."""
    for _ in range(times):
        breaker.call_sync(str)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    """Make calls that fail."""
    for _ in range(times):
        with contextlib.suppress(DownError), breaker:
            raise DownError


def opened(clock: FakeClock, **parameters: Any) -> CircuitBreaker:
    """A breaker that has just opened because of failures in a row."""
    breaker = make_breaker(clock, **parameters)
    fail(breaker, breaker.failure_threshold)
    assert breaker.is_open
    return breaker


def half_opened(clock: FakeClock, **parameters: Any) -> CircuitBreaker:
    """A breaker whose first open wait has just ended; no probe has run yet."""
    breaker = opened(clock, **parameters)
    clock.advance(breaker.recovery_timeout)
    assert breaker.is_half_open
    return breaker


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Failures, successes and calls in flight."""
    return breaker.total_failures, breaker.total_successes, breaker.in_flight


class RunningCall:
    """A guarded call that runs in its own context, as in a task, until the test ends it.

    It goes on even if the test keeps no reference to it.

    Args:
        breaker: The breaker that must admit it.
    """

    _all: ClassVar[list["RunningCall"]] = []

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._stack = contextlib.ExitStack()
        copy_context().run(self._stack.enter_context, breaker)
        self._all.append(self)

    def succeed(self) -> None:
        """End the call with success."""
        self._stack.__exit__(None, None, None)

    def fail(self) -> None:
        """End the call with a failure."""
        self.end_with(DownError())

    def end_with(self, error: BaseException) -> None:
        """End the call with an exception, which the breaker must not swallow."""
        assert not self._stack.__exit__(type(error), error, None)


Work: TypeAlias = Callable[[], Any]


async def _decorated(breaker: CircuitBreaker, work: Callable[[], Awaitable[Any]]) -> Any:
    return await breaker(work)()


async def _protected(breaker: CircuitBreaker, work: Callable[[], Awaitable[Any]]) -> Any:
    return await breaker.protected(work)()


async def _called(breaker: CircuitBreaker, work: Callable[[], Awaitable[Any]]) -> Any:
    return await breaker.call(work)


async def _in_block(breaker: CircuitBreaker, work: Callable[[], Awaitable[Any]]) -> Any:
    async with breaker:
        return await work()


async def _in_plain_block(breaker: CircuitBreaker, work: Callable[[], Awaitable[Any]]) -> Any:
    with breaker:
        return await work()


async def _in_exit_stack(breaker: CircuitBreaker, work: Callable[[], Awaitable[Any]]) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(breaker)
        return await work()


# Each form makes one guarded call of a coroutine function.
FORMS: dict[str, Callable[[CircuitBreaker, Callable[[], Awaitable[Any]]], Awaitable[Any]]] = {
    "@breaker": _decorated,
    "@breaker.protected": _protected,
    "call": _called,
    "async with": _in_block,
    "with": _in_plain_block,
    "AsyncExitStack": _in_exit_stack,
}


def _plain_in_block(breaker: CircuitBreaker, work: Work) -> Any:
    with breaker:
        return work()


def _plain_in_exit_stack(breaker: CircuitBreaker, work: Work) -> Any:
    with contextlib.ExitStack() as stack:
        stack.enter_context(breaker)
        return work()


# Each form makes one guarded call of a plain function.
PLAIN_FORMS: dict[str, Callable[[CircuitBreaker, Work], Any]] = {
    "@breaker": lambda breaker, work: breaker(work)(),
    "@breaker.protected": lambda breaker, work: breaker.protected(work)(),
    "call_sync": lambda breaker, work: breaker.call_sync(work),
    "with": _plain_in_block,
    "ExitStack": _plain_in_exit_stack,
}
