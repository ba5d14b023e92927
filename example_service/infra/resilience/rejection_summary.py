"""When a breaker writes a line about the calls that it refuses."""

import math

SECONDS_BETWEEN_SUMMARIES = 1.0


class RejectionSummary:
    """Counts what was refused since the last line, of which there is at most one a second.

    Attributes:
        due: When the next line may be written, in seconds on the breaker's clock.
        silent_until: Until when a refusal while open needs nothing but to be counted.
    """

    __slots__ = ("_logged", "due", "silent_until")

    def __init__(self) -> None:
        self.due = self.silent_until = -math.inf
        self._logged = 0

    def begin(self, rejections: int, now: float, *, silent: bool) -> None:
        """Start counting from `rejections`.

        Args:
            rejections: The breaker's lifetime count.
            now: Seconds on the breaker's clock.
            silent: Whether nobody but the count hears of each refusal.
        """
        self._logged = rejections
        self.due = now + SECONDS_BETWEEN_SUMMARIES
        self.silent_until = self.due if silent else -math.inf

    def since_last(self, rejections: int) -> int:
        """How many were refused since counting was last started."""
        return rejections - self._logged
