"""The interface through which a member controls the breakers of its process."""

from typing import Protocol

from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.participant import FollowClose, FollowOpen, FollowOrder, Rules


class Breakers(Protocol):
    """The breakers of this process, by name."""

    def rules(self, name: str) -> Rules:
        """The settings of the breakers called `name` that concern the fleet."""
        ...

    def open(self, name: str, instruction: FollowOpen) -> None:
        """Open all breakers called `name`."""
        ...

    def close(self, name: str, instruction: FollowClose) -> None:
        """Close all breakers called `name`."""
        ...

    def apply_order(self, name: str, instruction: FollowOrder) -> None:
        """Set a mode on all breakers called `name`, or reset them."""
        ...

    def attach(self, name: str, gate: LeaseGate) -> None:
        """Make all breakers called `name` check `gate` before they probe."""
        ...

    def detach(self, name: str) -> None:
        """Remove the gate, so that the breakers called `name` probe without leases."""
        ...
