"""Modes that apply to every breaker of a name, including those created later."""

import math
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from example_service.infra.resilience.rules.states import Mode

# As many as remembered state changes.
REMEMBERED_ORDERS = 20


class NamedMode(NamedTuple):
    """A mode for every breaker of a name.

    Attributes:
        mode: Which mode.
        reason: Why, in the operator's words.
        seconds: Seconds until it ends; None means until a reset.
    """

    mode: Mode
    reason: str
    seconds: float | None


class Order(NamedTuple):
    """An operator's order for every breaker of a name.

    Attributes:
        at: When, as wall time in UTC.
        name: The name.
        mode: The mode that was set; None for a reset.
        reason: Why.
        seconds: Seconds until the mode ends; None means until a reset.
    """

    at: datetime
    name: str
    mode: Mode | None
    reason: str
    seconds: float | None


class NamedModes:
    """The modes that operators have set for a name. A registry calls this under its lock.

    Args:
        clock: Returns the current time in seconds.

    Attributes:
        given: By name, each mode as it was given and the time when it ends.
        orders: The most recent orders, oldest first.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.given: dict[str, tuple[NamedMode, float]] = {}
        self.orders: deque[Order] = deque(maxlen=REMEMBERED_ORDERS)

    def set(self, name: str, mode: NamedMode) -> None:
        """Set the mode of a name, replacing the one before."""
        self._note(name, *mode)
        self._forget_ended()
        ends_at = math.inf if mode.seconds is None else self._clock() + mode.seconds
        self.given[name] = mode, ends_at

    def reset(self, name: str, reason: str) -> None:
        """End the mode of a name, if there is one, and record the order."""
        self._note(name, None, reason, None)
        self.remove(name)

    def remove(self, name: str) -> None:
        """End the mode of a name, if there is one."""
        self.given.pop(name, None)

    def clear(self) -> None:
        """End every mode, and forget the orders."""
        self.given.clear()
        self.orders.clear()

    def get(self, name: str) -> NamedMode | None:
        """The mode that applies to a name now, with the remaining seconds."""
        mode, ends_at = self.given.get(name, (None, 0.0))
        if mode is None or mode.seconds is None:
            return mode
        seconds = ends_at - self._clock()
        return mode._replace(seconds=seconds) if seconds > 0 else None

    def all(self) -> dict[str, NamedMode]:
        """The modes that apply now, by name."""
        self._forget_ended()
        return {name: mode for name in self.given if (mode := self.get(name)) is not None}

    def _note(self, name: str, mode: Mode | None, reason: str, seconds: float | None) -> None:
        at = datetime.fromtimestamp(time.time(), UTC)
        self.orders.append(Order(at, name, mode, reason, seconds))

    def _forget_ended(self) -> None:
        now = self._clock()
        for name in [name for name, (_, ends_at) in self.given.items() if ends_at <= now]:
            del self.given[name]
