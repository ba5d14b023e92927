"""Circuit breakers created on demand, one for each name, in a bounded number."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.rules.phases import Closed, Open
from example_service.infra.resilience.validation import check_count

logger = logging.getLogger("example_service.infra.resilience")

_sets: "weakref.WeakSet[BreakerSet]" = weakref.WeakSet()


class BreakerSet:
    """The breakers of one or more transports, by name.

    Two transports that are given the same set share the circuit of an origin. Safe to use from any
    thread.

    Args:
        max_breakers: Limit of breakers. A new name replaces the least recently used breaker that is
            closed and idle, or otherwise one that is idle and whose wait is over.
        parameters: Parameters of every `CircuitBreaker` created here.

    Attributes:
        is_failed_result: That parameter of every breaker.

    Raises:
        TypeError: A value is of the wrong type, or there is no such parameter.
        ValueError: A value is out of range.
    """

    def __init__(self, *, max_breakers: int = 256, **parameters: Any) -> None:
        check_count("max_breakers", max_breakers)
        self._limit = max_breakers
        self._parameters = {**parameters, "listeners": tuple(parameters.get("listeners", ()))}
        trial = CircuitBreaker("trial", **{**self._parameters, "registry": None})
        self.is_failed_result = trial.is_failed_result
        self._lock = Lock()
        # The least recently used first.
        self._by_name: OrderedDict[str, CircuitBreaker] = OrderedDict()
        self._was_full = False
        _sets.add(self)

    def named(self, name: str) -> CircuitBreaker:
        """The breaker of a name, created if there is none.

        If none can be replaced, returns a new breaker for this call only, which admits it.
        """
        with self._lock:
            breaker = self._by_name.get(name)
            if breaker is not None:
                self._by_name.move_to_end(name)
                return breaker
            if len(self._by_name) < self._limit or self._make_room():
                breaker = CircuitBreaker(name, **self._parameters)
                self._by_name[name] = breaker
                return breaker
            is_news, self._was_full = not self._was_full, True
        if is_news:
            logger.warning(
                "All %d circuit breakers of a set are open or in use, so '%s' is not guarded; "
                "this is logged only once",
                self._limit,
                name,
                extra={"breaker": name},
            )
        return CircuitBreaker(name, **{**self._parameters, "registry": None})

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Remove the breakers that a block adds at its end; for tests."""
        with self._lock:
            existing = OrderedDict(self._by_name)
        try:
            yield
        finally:
            with self._lock:
                self._by_name = existing
                self._was_full = False

    def _make_room(self) -> bool:
        """Remove a breaker that can be replaced, if there is one. Requires the lock.

        Usually nothing else refers to it, so it also disappears from the registry and the metrics.
        A request that has just looked it up may still use it.
        """
        for is_spare in (_is_closed, _is_past_its_wait):
            for name, breaker in self._by_name.items():
                if breaker.machine.mode is None and is_spare(breaker) and _is_idle(breaker):
                    del self._by_name[name]
                    return True
        return False


# These functions do not process what has become due: that would call listeners under the lock.


def _is_idle(breaker: CircuitBreaker) -> bool:
    with breaker.mutex:
        return not breaker.machine.in_flight()


def _is_closed(breaker: CircuitBreaker) -> bool:
    return isinstance(breaker.machine.phase, Closed)


def _is_past_its_wait(breaker: CircuitBreaker) -> bool:
    phase = breaker.machine.phase
    return not isinstance(phase, Open) or breaker.clock() >= phase.until


def all_breaker_sets() -> list[BreakerSet]:
    """Every set of the process that is in use."""
    return list(_sets)
