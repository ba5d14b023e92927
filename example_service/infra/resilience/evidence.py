"""What a breaker remembers of failures: names and times, never an exception itself."""

from collections import deque

ERRORS_REMEMBERED = 5
ERROR_NAME_LENGTH = 80


class Evidence:
    """The last failures of a breaker, and what opened its circuit.

    Attributes:
        failed_at: Wall time of the last failure, in seconds since the epoch; None for none.
        errors: Type names of the last failures' exceptions, oldest first.
        reason: What opened the circuit; None while it is closed.
    """

    __slots__ = ("errors", "failed_at", "reason")

    def __init__(self) -> None:
        self.failed_at: float | None = None
        self.errors: deque[str] = deque(maxlen=ERRORS_REMEMBERED)
        self.reason: str | None = None

    def open_because(self, cause: str) -> str:
        """Keep the reason of an opening: its cause and the kinds of the last failures."""
        kinds = dict.fromkeys(name[:ERROR_NAME_LENGTH] for name in reversed(self.errors))
        self.reason = f"{cause}; last failures: {', '.join(kinds)}" if kinds else cause
        return self.reason
