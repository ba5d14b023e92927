"""The limit on probes where several processes share one circuit."""

from typing import Protocol


class Gate(Protocol):
    """Decides whether this process may run a probe. Its methods must not block.

    A circuit without a gate decides alone.
    """

    def can_probe(self) -> bool:
        """Whether a probe may start."""
        ...

    def take_probe(self) -> bool:
        """Use up the permission for one probe. Returns whether the probe may start."""
        ...

    def request_probe(self) -> None:
        """Ask for a probe, because a call was refused that could have been one."""
        ...

    def probe_ended(self, *, succeeded: bool | None) -> None:
        """Record that a probe ended: with success, or None if it was neutral."""
        ...
