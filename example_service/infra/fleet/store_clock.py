"""The clock of the store, as a member estimates it between two replies."""

from collections.abc import Callable
from typing import Final

SET_BACK_MILLISECONDS: Final = -1000
"""A clock that differs from the estimate by this much was set back."""


class StoreClock:
    """Estimates the store's clock in milliseconds. An estimate is never ahead of it.

    Args:
        clock: The member's own clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = 0
        self._read_at = 0.0

    def now(self) -> int:
        """The estimated time."""
        return self.at(self._clock())

    def at(self, at: float) -> int:
        """The estimated time at a time on the member's own clock."""
        return self._last + int(1000 * (at - self._read_at))

    def set(self, now: int, at: float) -> int:
        """Note the time in a reply. Returns by how much it differs from the estimate."""
        difference = now - self.at(at)
        self._last, self._read_at = now, at
        return difference
