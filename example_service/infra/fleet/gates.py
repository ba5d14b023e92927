"""The gates of a process, by name."""

import logging
import time
from collections.abc import Callable
from typing import Final

from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.participant import Grant

logger = logging.getLogger(__name__)

MAX_CIRCUITS: Final = 10_000


class Gates:
    """The gates of all circuits that are not closed. Thread-safe.

    Args:
        on_demand: Called with the name of a circuit when a call was refused that could have been a
            probe. Must not block.
        on_end: Called when a probe ends, with the name of the circuit, the lease, and whether the
            probe succeeded: True, False, or None if its outcome says nothing about the dependency.
            Must not block.
        clock: The clock on which grants expire, in seconds.
    """

    def __init__(
        self,
        on_demand: Callable[[str], None],
        on_end: Callable[[str, str, bool | None], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_demand = on_demand
        self._on_end = on_end
        self._clock = clock
        self._gates: dict[str, LeaseGate] = {}
        # The circuits that have been granted leases in their current period.
        self._granted: set[str] = set()
        self._has_warned = False

    def get(self, name: str) -> LeaseGate | None:
        """The gate of the circuit called `name`; None if there is none."""
        return self._gates.get(name)

    def get_or_create(self, name: str) -> LeaseGate | None:
        """The gate of a circuit, created if needed; None if there are `MAX_CIRCUITS` already."""
        gate = self._gates.get(name)
        if gate is not None:
            return gate
        if len(self._gates) >= MAX_CIRCUITS:
            self._warn()
            return None
        new = LeaseGate(name, self._on_demand, self._on_end, clock=self._clock)
        # Threads that open breakers of one name at the same time must share one gate.
        return self._gates.setdefault(name, new)

    def grant(self, name: str, grant: Grant) -> None:
        """Permit one more probe of a circuit, if it has a gate."""
        if gate := self._gates.get(name):
            self._granted.add(name)
            gate.grant(grant)

    def clear(self, name: str) -> None:
        """Drop all leases of a circuit."""
        self._granted.discard(name)
        if gate := self._gates.get(name):
            gate.clear()

    def remove(self, name: str) -> None:
        """Remove the gate of a circuit."""
        self._granted.discard(name)
        self._gates.pop(name, None)

    def open(self) -> None:
        """Let all breakers probe without leases."""
        self._granted.clear()
        for gate in list(self._gates.values()):
            gate.is_bound = False
            gate.clear()

    def take_expired(self) -> list[tuple[str, str]]:
        """Remove and return the leases that were not used in time, with their circuits' names."""
        gates = [(name, self._gates[name]) for name in self._granted]
        return [(name, lease_id) for name, gate in gates for lease_id in gate.take_expired()]

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "More than %d circuits are not closed; further ones are not shared with the fleet. "
                "Name breakers after dependencies, not after requests or users.",
                MAX_CIRCUITS,
            )
