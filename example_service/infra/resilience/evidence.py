"""What a breaker remembers of failures: names and times, never an exception itself."""

import sys

KINDS_REMEMBERED = 5
KIND_LENGTH = 80


class Evidence:
    """The last failures of a breaker, and what opened its circuit.

    Attributes:
        failed_at: Wall time of the last failure, in seconds since the epoch; None for none.
        last_kind: Type name of the last failure's exception, or what else it was.
        reason: What opened the circuit; None while it is closed.
    """

    __slots__ = ("_older_kinds", "failed_at", "last_kind", "reason")

    def __init__(self) -> None:
        self.failed_at: float | None = None
        self.last_kind: str | None = None
        self.reason: str | None = None
        self._older_kinds: tuple[str, ...] = ()

    def remember(self, kind: str) -> None:
        """Add a kind of failure; those that came before it are kept, the oldest forgotten."""
        kind = sys.intern(kind)  # The same few names stand in every breaker of a process.
        if self.last_kind is not None:
            kinds = [one for one in (self.last_kind, *self._older_kinds) if one != kind]
            self._older_kinds = tuple(kinds[: KINDS_REMEMBERED - 1])
        self.last_kind = kind

    def forget_outage(self) -> None:
        """Forget what failed, and what opened the circuit; the next outage is another one."""
        self.last_kind = self.reason = None
        self._older_kinds = ()

    def _kinds(self) -> tuple[str, ...]:
        return () if self.last_kind is None else (self.last_kind, *self._older_kinds)

    def open_because(self, cause: str) -> str:
        """Keep the reason of an opening: its cause and the kinds of the last failures."""
        kinds = ", ".join(_printable(kind[:KIND_LENGTH]) for kind in self._kinds())
        self.reason = f"{cause}; last failures: {kinds}" if kinds else cause
        return self.reason


def _printable(kind: str) -> str:
    """A type's name may hold anything; in a log line it must not begin another."""
    return "".join(one if one.isprintable() else "?" for one in kind)
