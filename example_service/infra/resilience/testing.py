"""A kit for tests of code that uses circuit breakers.

This is the only module of the package that imports pytest, and nothing of the service imports it.
One line in the topmost `conftest.py` lets no breaker of a test be seen by another test:

    pytest_plugins = ["example_service.infra.resilience.testing"]

There is no assertion in here to explain, so PYTEST_DONT_REWRITE: else pytest would warn of every
`conftest.py` that imports from here and has that line too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import inf

import pytest

from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    Event,
    StateChanged,
)
from example_service.infra.resilience.registry import (
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.rules.circuit_state import CircuitState, Open
from example_service.infra.resilience.validation import number_error

__all__ = ["FakeClock", "RecordingListener", "half_opened", "isolated_registry", "opened"]


class FakeClock:
    """A clock that moves only when it is told to; for the `clock` of a breaker.

    Args:
        now: Seconds that it shows at first.

    Attributes:
        now: Seconds that it shows.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass.

        Raises:
            TypeError: That is not a number.
            ValueError: That is below zero or not finite; a clock never goes back.
        """
        if error := number_error("seconds", seconds, at_least=0.0):
            raise error
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Stand in for `asyncio.sleep`: let the time pass at once."""
        self.advance(seconds)


class RecordingListener:
    """Keeps what a breaker tells, in the order in which it came; for its `listeners`.

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
    """Have a circuit that has just opened, and have it closed after the block.

    The block begins with no count, no backoff and no mode set by hand, whatever was before. From
    there the breaker's own rules hold: when its wait is over the circuit is half-open, and so on.
    At its end the breaker is reset. Calls in flight at either end become stale. Log, listeners and
    metrics are told of every change as of any other.

    Args:
        breaker: The breaker; one that was made at import time will do.
        retry_after: Seconds until the circuit is half-open; None means what the breaker would wait
            the first time, which is `recovery_timeout` where no jitter is set.
        clock: Where the breaker takes "now" from for the length of the block, a `FakeClock` say;
            None leaves it its own.

    Raises:
        TypeError: `retry_after` is not a number.
        ValueError: `retry_after` is not above zero and finite.
    """
    if retry_after is not None and (error := number_error("retry_after", retry_after)):
        raise error
    with _clean(breaker, clock):
        _open(breaker, retry_after)
        yield breaker


@contextmanager
def half_opened(
    breaker: CircuitBreaker, *, clock: Callable[[], float] | None = None
) -> Iterator[CircuitBreaker]:
    """Have a circuit that has just become half-open, and have it closed after the block.

    It has opened before, once, and all that was said of `opened` holds. No probe runs yet and none
    has succeeded: `success_threshold` successes close the circuit, and a failure opens it for the
    second of the breaker's waits.

    Args:
        breaker: The breaker; one that was made at import time will do.
        clock: Where the breaker takes "now" from for the length of the block; None leaves it its
            own.
    """
    with _clean(breaker, clock):
        _open(breaker, None)
        with breaker._mutex:
            breaker._machine.move_opening(-inf)
        breaker._look()
        yield breaker


@contextmanager
def _clean(breaker: CircuitBreaker, clock: Callable[[], float] | None) -> Iterator[None]:
    """Reset a breaker before and after a block, and give it another clock inside."""
    breaker._begin_reset()()
    usual = breaker._clock
    breaker._clock = usual if clock is None else clock
    try:
        yield
    finally:
        breaker._begin_reset()()
        breaker._clock = usual


def _open(breaker: CircuitBreaker, wait_seconds: float | None) -> None:
    machine, now, cause = breaker._machine, breaker._clock(), "opened by a test"
    with breaker._mutex:
        if wait_seconds is None:
            machine._open(now, cause)
        else:
            machine._change(Open(now, float(wait_seconds)), cause)
        events = breaker._take_events(now)
    breaker._publish(events)


@pytest.fixture(autouse=True)
def isolated_registry() -> Iterator[CircuitBreakerRegistry]:
    """The process's registry, as untouched by other tests.

    Breakers that exist before the test, as those made at import time do, are reset before and after
    it. Whatever the test adds to the registry, holds in it, takes out of it or configures is undone
    after it, and its changes of state are forgotten; breakers that are made anew then count from
    zero, in metrics too. Once imported into a `conftest.py`, or with the plugin, it acts on every
    test without being asked for.
    """
    registry = circuit_breaker_registry
    with registry._lock:
        # Being in this list keeps them alive, and thereby their places in the registry valid.
        existing = list(registry)
        newest = {breaker.name: registry._newest[breaker.name] for breaker in existing}
        held, parameters = dict(registry._held), registry._parameters
        counts = deepcopy((registry._retired, registry._remembered))
        recent = list(registry._recent)
        registry._modes = {}
    for breaker in existing:
        breaker._begin_reset()()
    yield registry
    with registry._lock:
        registry._modes = {}
        registry._newest, registry._held, registry._parameters = newest, held, parameters
        registry._retired, registry._remembered = counts
    for breaker in existing:
        breaker._begin_reset()()
        breaker._registry = registry
    registry._recent.clear()
    registry._recent.extend(recent)
