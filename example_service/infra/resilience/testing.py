"""A kit for tests of code that uses circuit breakers.

This is the only module of the package that imports pytest, and nothing of the service imports it.
One line in the top-level `conftest.py` isolates the breakers of each test:

    pytest_plugins = ["example_service.infra.resilience.testing"]

This module contains no assertions, so PYTEST_DONT_REWRITE: otherwise pytest would warn about every
`conftest.py` that has this line and also imports from here.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from math import inf
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import pytest

from example_service.infra.resilience.breaker_set import all_breaker_sets
from example_service.infra.resilience.circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    Event,
    StateChanged,
)
from example_service.infra.resilience.registry import all_registries
from example_service.infra.resilience.rules.states import CircuitState
from example_service.infra.resilience.validation import check_number

__all__ = ["FakeClock", "RecordingListener", "half_opened", "isolated_registry", "opened"]


class FakeClock:
    """A clock that only `advance` moves; for the `clock` of a breaker.

    Args:
        now: The initial time in seconds.

    Attributes:
        now: The current time in seconds.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Advance the clock.

        Raises:
            TypeError: That is not a number.
            ValueError: That is below zero or not finite; a clock never goes back.
        """
        check_number("seconds", seconds, at_least=0.0)
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Replace `asyncio.sleep`: advance the clock and return at once."""
        self.advance(seconds)


class RecordingListener:
    """Records the events of a breaker in order; for its `listeners`.

    Attributes:
        events: Every event, oldest first.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def transitions(self) -> list[tuple[CircuitState, CircuitState]]:
        """The states before and after each change, oldest first."""
        return [
            (event.from_state, event.to_state)
            for event in self.events
            if isinstance(event, StateChanged)
        ]

    def on_state_change(self, event: StateChanged, /) -> None:
        """Keep a change of state."""
        self.events.append(event)

    def on_success(self, event: CallSucceeded, /) -> None:
        """Keep a success."""
        self.events.append(event)

    def on_failure(self, event: CallFailed, /) -> None:
        """Keep a failure."""
        self.events.append(event)

    def on_rejection(self, event: CallRejected, /) -> None:
        """Keep a refused call."""
        self.events.append(event)


@contextmanager
def opened(
    breaker: CircuitBreaker,
    *,
    retry_after: float | None = None,
    clock: Callable[[], float] | None = None,
) -> Iterator[CircuitBreaker]:
    """Open a circuit for the length of a block, and close it afterwards.

    At the start of the block the circuit has just opened, with no counts, no backoff and no mode.
    Then the breaker's own rules apply: when its wait is over the circuit becomes half-open, and so
    on. At the end the breaker is reset. Calls in flight at the start or the end become late. Log,
    listeners and metrics report every state change as usual.

    Args:
        breaker: The breaker; it may have been created at import time.
        retry_after: Seconds until the circuit is half-open; None means the breaker's first wait,
            which is `recovery_timeout` without jitter.
        clock: The clock of the breaker for the length of the block, such as a `FakeClock`; None
            keeps its own clock.

    Raises:
        TypeError: `retry_after` is not a number.
        ValueError: `retry_after` is not above zero and finite.
    """
    if retry_after is not None:
        check_number("retry_after", retry_after)
    with _clean(breaker, clock):
        _open(breaker, retry_after)
        yield breaker


@contextmanager
def half_opened(
    breaker: CircuitBreaker, *, clock: Callable[[], float] | None = None
) -> Iterator[CircuitBreaker]:
    """Make a circuit half-open for the length of a block, and close it afterwards.

    The circuit has opened once before, and everything described in `opened` applies. No probe has
    started yet: `success_threshold` successes close the circuit, and a failure opens it for the
    breaker's second wait.

    Args:
        breaker: The breaker; it may have been created at import time.
        clock: The clock of the breaker for the length of the block; None keeps its own clock.
    """
    with _clean(breaker, clock):
        _open(breaker, None)
        with breaker.mutex:
            breaker.machine.move_opening(-inf, breaker.clock())
        breaker.look()
        yield breaker


@contextmanager
def _clean(breaker: CircuitBreaker, clock: Callable[[], float] | None) -> Iterator[None]:
    """Reset a breaker before and after a block, and give it another clock inside."""
    breaker.begin_reset()()
    usual = breaker.clock
    breaker.clock = usual if clock is None else clock
    try:
        yield
    finally:
        breaker.begin_reset()()
        breaker.clock = usual


def _open(breaker: CircuitBreaker, wait_seconds: float | None) -> None:
    wait = None if wait_seconds is None else float(wait_seconds)
    breaker.force(CircuitState.OPEN, "opened by a test", wait_seconds=wait)


@pytest.fixture(autouse=True)
def isolated_registry() -> Iterator[CircuitBreakerRegistry]:
    """The process's registry, isolated from other tests.

    Every breaker that exists before the test is reset before and after it, and gets its clock back:
    those created at import time, in transports, in other registries and in none. Whatever the test
    changes in a registry, or adds to a `BreakerSet`, is undone after it. Once imported into a
    `conftest.py`, or with the plugin, it acts on every test without being requested.
    """
    _reset_all()
    clocks = WeakKeyDictionary({breaker: breaker.clock for breaker in _breakers})
    with ExitStack() as stack:
        for registry in all_registries():
            stack.enter_context(registry.isolated())
        for breakers in all_breaker_sets():
            stack.enter_context(breakers.isolated())
        yield circuit_breaker_registry
        for breaker, clock in clocks.items():
            breaker.clock = clock
        _reset_all()


def _reset_all() -> None:
    for breaker in list(_breakers):
        breaker.begin_reset()()


# All breakers of the process, including those in no registry. Only tests import this module, so
# recording them costs nothing in production.
_breakers = WeakSet(found for found in gc.get_objects() if isinstance(found, CircuitBreaker))
_create = CircuitBreaker.__init__


@wraps(_create)
def _create_and_track(breaker: CircuitBreaker, *arguments: Any, **parameters: Any) -> None:
    _create(breaker, *arguments, **parameters)
    _breakers.add(breaker)


CircuitBreaker.__init__ = _create_and_track  # type: ignore[assignment, method-assign]
