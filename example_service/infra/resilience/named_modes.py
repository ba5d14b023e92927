"""Modes that apply to every breaker of a name, including those created later."""

import math
from collections.abc import Callable
from typing import NamedTuple

from example_service.infra.resilience.rules.states import Mode


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


class NamedModes:
    """The modes that operators have set for a name. A registry calls this under its lock.

    Args:
        clock: Where "now" comes from, in seconds.

    Attributes:
        given: By name, each mode as it was given and the time when it ends.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.given: dict[str, tuple[NamedMode, float]] = {}

    def set(self, name: str, mode: NamedMode) -> None:
        """Have a mode apply to a name, in place of the one before."""
        self._forget_ended()
        ends_at = math.inf if mode.seconds is None else self._clock() + mode.seconds
        self.given[name] = mode, ends_at

    def remove(self, name: str) -> None:
        """End the mode of a name, if there is one."""
        self.given.pop(name, None)

    def clear(self) -> None:
        """End every mode."""
        self.given.clear()

    def get(self, name: str) -> NamedMode | None:
        """The mode that applies to a name now, with the seconds that are left."""
        mode, ends_at = self.given.get(name, (None, 0.0))
        if mode is None or mode.seconds is None:
            return mode
        seconds = ends_at - self._clock()
        return mode._replace(seconds=seconds) if seconds > 0 else None

    def all(self) -> dict[str, NamedMode]:
        """The modes that apply now, by name."""
        self._forget_ended()
        return {name: mode for name in self.given if (mode := self.get(name)) is not None}

    def _forget_ended(self) -> None:
        now = self._clock()
        for name in [name for name, (_, ends_at) in self.given.items() if ends_at <= now]:
            del self.given[name]
