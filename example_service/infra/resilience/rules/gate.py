"""What stands between OPEN and HALF_OPEN where several processes act as one circuit."""

from typing import Protocol


class Gate(Protocol):
    """Decides how many probes this process may run. Its methods return at once.

    Without a gate a circuit probes on its own.
    """

    def is_open(self) -> bool:
        """Whether a probe may start."""
        ...

    def take(self) -> bool:
        """Take the right to one probe. Returns whether there was one."""
        ...

    def ask(self) -> None:
        """A call was refused that could have been a probe."""
        ...

    def ended(self, *, succeeded: bool | None) -> None:
        """A probe ended without opening the circuit; None if it says nothing."""
        ...
