"""What a member asks of the breakers of its process."""

from typing import Protocol

from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.participant import FollowClose, FollowOpen, Obey, Rules


class Breakers(Protocol):
    """The breakers of this process, by name."""

    def rules(self, name: str) -> Rules:
        """What the breaker of a name was created with."""
        ...

    def open(self, name: str, instruction: FollowOpen) -> None:
        """Open all breakers of a name."""
        ...

    def close(self, name: str, instruction: FollowClose) -> None:
        """Close all breakers of a name."""
        ...

    def obey(self, name: str, instruction: Obey) -> None:
        """Set a mode on all breakers of a name, or reset them."""
        ...

    def attach(self, name: str, gate: LeaseGate) -> None:
        """Have all breakers of a name ask a gate before they probe."""
        ...

    def detach(self, name: str) -> None:
        """Have the breakers of a name probe on their own."""
        ...
