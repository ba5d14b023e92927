"""The gate that decides whether the breakers of one name may probe."""

import time
from collections.abc import Callable
from typing import Final

from example_service.infra.fleet.participant import Grant

ASK_SECONDS: Final = 0.02
"""The shortest time between two requests for a lease, in seconds."""


class LeaseGate:
    """Permits one probe for each lease, or every probe while no leases are needed.

    Breakers call its methods from any thread while holding their own lock.

    Args:
        name: The name of the circuit.
        on_demand: Called with the name when a call was refused that could have been a probe. Must
            not block.
        on_end: Called when a probe ends, with the name, its lease and whether it succeeded: True,
            False, or None if its outcome says nothing about the dependency. Must not block.
        clock: The clock on which grants expire, in seconds.

    Attributes:
        is_bound: Whether a probe needs a lease.
    """

    # A process may have thousands, so they are kept small.
    __slots__ = (
        "_ask_at",
        "_clock",
        "_name",
        "_on_demand",
        "_on_end",
        "_unused",
        "_used",
        "is_bound",
    )

    def __init__(
        self,
        name: str,
        on_demand: Callable[[str], None],
        on_end: Callable[[str, str, bool | None], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_bound = False
        self._name = name
        self._on_demand = on_demand
        self._on_end = on_end
        self._clock = clock
        self._unused: list[Grant] = []
        self._used: list[Grant] = []
        self._ask_at = 0.0

    # Called by breakers.

    def can_probe(self) -> bool:
        """Whether a probe may start."""
        return not self.is_bound or any(
            self._clock() < grant.use_by for grant in self._unused.copy()
        )

    def take_probe(self) -> bool:
        """Use one lease for a probe. Returns whether the probe may start."""
        while (grant := _first(self._unused)) is not None:
            if self._clock() < grant.use_by:
                self._used.append(grant)
                return True
            self._on_end(self._name, grant.lease_id, None)
        return not self.is_bound

    def request_probe(self) -> None:
        """Request a lease, because a call was refused that could have been a probe."""
        if self.is_bound and (now := self._clock()) >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            self._on_demand(self._name)

    def probe_ended(self, *, succeeded: bool | None) -> None:
        """Record that a probe ended without failing.

        If its outcome says nothing about the dependency, the next probe reuses the lease.
        """
        grant = _first(self._used)
        if grant is None:
            return
        if succeeded is None and self._clock() < grant.use_by:
            self._unused.insert(0, grant)
        else:
            self._on_end(self._name, grant.lease_id, succeeded)

    # Called by the member.

    def grant(self, grant: Grant) -> None:
        """Permit one more probe."""
        self._unused.append(grant)

    def take_used(self) -> str | None:
        """Remove and return the lease of the oldest running probe; None if it has no lease."""
        grant = _first(self._used)
        return None if grant is None else grant.lease_id

    def take_expired(self) -> list[str]:
        """Remove and return the leases that were not used in time."""
        expired = []
        while (grant := _first(self._unused)) is not None:
            if self._clock() < grant.use_by:
                self._unused.insert(0, grant)
                break
            expired.append(grant.lease_id)
        return expired

    def clear(self) -> None:
        """Drop all leases."""
        self._unused.clear()
        self._used.clear()


def _first(grants: list[Grant]) -> Grant | None:
    """Remove and return the oldest grant; None if there is none.

    Checking the length first would not be safe, because another thread may take the last one.
    """
    try:
        return grants.pop(0)
    except IndexError:
        return None
