"""The breakers of `docs/comparison.md`, each with the same small set of functions."""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiobreaker  # type: ignore[import-untyped]
import circuitbreaker  # type: ignore[import-untyped]
import purgatory
import pybreaker
from purgatory.domain.model import OpenedState

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock

CLOCK = FakeClock()
SHORT_SECONDS = 0.01
"""A wait that is short enough for libraries without a replaceable clock."""


class DependencyError(Exception):
    """The guarded call failed."""


class WrongRequestError(Exception):
    """The guarded call failed in a way that is configured not to count."""


@dataclass(frozen=True)
class Library:
    """How a library is used.

    Attributes:
        name: The name of its column.
        refusal: The exception that it raises instead of making a call.
        make: Creates a breaker from its number of failures and its seconds of waiting.
        decorate: Its decorator for synchronous functions.
        decorate_async: Its decorator for asynchronous functions.
        block: Its block for synchronous code, or None.
        async_block: Its block for asynchronous code, or None.
        call: Its way to call an undecorated function, or None.
        wait: Lets this many seconds pass.
        parameters: The class or function whose parameters configure it.
    """

    name: str
    refusal: type[Exception]
    make: Callable[[int, float], Any]
    decorate: Callable[[Any], Callable[[Any], Any]]
    decorate_async: Callable[[Any], Callable[[Any], Any]]
    parameters: Callable[..., Any]
    block: Callable[[Any], Any] | None = None
    async_block: Callable[[Any], Any] | None = None
    call: Callable[[Any, Callable[[], Any]], Any] | None = None
    wait: Callable[[float], None] = time.sleep

    def is_open(self, breaker: Any) -> bool:
        """Whether it refuses a call that would succeed."""
        try:
            self.decorate(breaker)(lambda: None)()
        except self.refusal:
            return True
        return False

    def fail(self, breaker: Any, error: BaseException | None = None) -> BaseException | None:
        """Make a call that fails, and return what it raised."""
        failure = error or DependencyError()

        def failing() -> None:
            raise failure

        try:
            self.decorate(breaker)(failing)()
        except BaseException as raised:  # noqa: BLE001 - including a cancellation
            return raised
        return None


class _Purgatory:
    """A synchronous and an asynchronous factory with one breaker each."""

    def __init__(self, failures: int, seconds: float) -> None:
        options: dict[str, Any] = {"exclude": [WrongRequestError]}
        self.sync = purgatory.SyncCircuitBreakerFactory(failures, seconds, **options)
        self.asynchronous = purgatory.AsyncCircuitBreakerFactory(failures, seconds, **options)


@asynccontextmanager
async def _async_block(breaker: _Purgatory) -> AsyncIterator[None]:
    async with await breaker.asynchronous.get_breaker("compared"):
        yield


OURS = Library(
    name="here",
    refusal=CircuitOpenError,
    make=lambda failures, seconds: CircuitBreaker(
        "compared",
        failure_threshold=failures,
        recovery_timeout=seconds,
        is_failure=lambda error: not isinstance(error, WrongRequestError),
        clock=CLOCK,
        registry=None,
    ),
    decorate=lambda breaker: breaker.protected,
    decorate_async=lambda breaker: breaker.protected,
    parameters=CircuitBreaker,
    block=lambda breaker: breaker,
    async_block=lambda breaker: breaker,
    call=lambda breaker, function: breaker.call_sync(function),
    wait=CLOCK.advance,
)
PYBREAKER = Library(
    name="pybreaker",
    refusal=pybreaker.CircuitBreakerError,
    make=lambda failures, seconds: pybreaker.CircuitBreaker(
        failures, seconds, exclude=[WrongRequestError]
    ),
    decorate=lambda breaker: breaker,
    decorate_async=lambda breaker: breaker,
    parameters=pybreaker.CircuitBreaker,
    block=lambda breaker: breaker.calling(),
    call=lambda breaker, function: breaker.call(function),
)
CIRCUITBREAKER = Library(
    name="circuitbreaker",
    refusal=circuitbreaker.CircuitBreakerError,
    make=lambda failures, seconds: circuitbreaker.CircuitBreaker(
        failures,
        seconds,
        expected_exception=lambda kind, _error: (
            issubclass(kind, Exception) and kind is not WrongRequestError
        ),
    ),
    decorate=lambda breaker: breaker,
    decorate_async=lambda breaker: breaker,
    parameters=circuitbreaker.CircuitBreaker,
    block=lambda breaker: breaker,
    call=lambda breaker, function: breaker.call(function),
)
AIOBREAKER = Library(
    name="aiobreaker",
    refusal=aiobreaker.CircuitBreakerError,
    make=lambda failures, seconds: aiobreaker.CircuitBreaker(
        failures, timedelta(seconds=seconds), exclude=[WrongRequestError]
    ),
    decorate=lambda breaker: breaker,
    decorate_async=lambda breaker: breaker,
    parameters=aiobreaker.CircuitBreaker,
    call=lambda breaker, function: breaker.call(function),
)
PURGATORY = Library(
    name="purgatory",
    refusal=OpenedState,
    make=_Purgatory,
    decorate=lambda breaker: breaker.sync("compared"),
    decorate_async=lambda breaker: breaker.asynchronous("compared"),
    parameters=purgatory.AsyncCircuitBreakerFactory,
    block=lambda breaker: breaker.sync.get_breaker("compared"),
    async_block=_async_block,
)
LIBRARIES = (OURS, PYBREAKER, CIRCUITBREAKER, AIOBREAKER, PURGATORY)


async def half_open(library: Library, breaker: Any, failures: int = 1) -> None:
    """Open a breaker for synchronous and asynchronous calls, and let its wait end."""

    async def failing() -> None:
        raise DependencyError

    for _ in range(failures):
        library.fail(breaker)
        if library is PURGATORY:
            with suppress(DependencyError):
                await library.decorate_async(breaker)(failing)()
    library.wait(2 * SHORT_SECONDS)


class Listener:
    """Records failures, under the method names of all libraries."""

    def __init__(self) -> None:
        self.heard = False

    def __call__(self, *_event: Any) -> None:
        """Called for every event (purgatory)."""
        self.heard = True

    def on_failure(self, _event: Any) -> None:
        """Called when a call failed (this project)."""
        self.heard = True

    def failure(self, *_event: Any) -> None:
        """Called when a call failed (pybreaker, aiobreaker)."""
        self.heard = True

    def before_call(self, *_event: Any) -> None:
        """Called before a call."""

    def success(self, *_event: Any) -> None:
        """Called when a call succeeded."""

    def state_change(self, *_event: Any) -> None:
        """Called when the circuit has changed its state."""


@contextmanager
def local_time(zone: str) -> Iterator[None]:
    """Use another time zone within the block."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        del os.environ["TZ"]
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def failing_items() -> Iterator[int]:
    """Yield an item, then fail."""
    yield 1
    raise DependencyError
