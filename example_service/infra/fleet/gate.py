"""What stands between OPEN and HALF_OPEN of the breakers of one name."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from example_service.infra.fleet.participant import Grant

ASK_SECONDS: Final = 0.02
"""Refused calls ask for a probe no more often than this."""


class LeaseGate:
    """Admits one probe for each lease, or any while the breakers are on their own.

    Breakers call its methods from any thread, while they have their lock.

    Args:
        on_demand: Called when a call was refused that could have been a probe; returns at once.
        on_end: Called with the lease of a probe that ended, and whether it succeeded; None if it
            says nothing about the dependency. Returns at once.
        clock: The clock of the grants, in seconds.

    Attributes:
        is_bound: Whether probes need leases.
    """

    def __init__(
        self,
        on_demand: Callable[[], None],
        on_end: Callable[[str, bool | None], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_bound = False
        self._on_demand = on_demand
        self._on_end = on_end
        self._clock = clock
        self._unused: deque[Grant] = deque()
        self._used: deque[Grant] = deque()
        self._ask_at = 0.0

    # Called by breakers.

    def is_open(self) -> bool:
        """Whether a probe may start."""
        return not self.is_bound or any(self._clock() < one.use_by for one in self._unused.copy())

    def take(self) -> bool:
        """Take the right to one probe. Returns whether there was one."""
        while (grant := _first(self._unused)) is not None:
            if self._clock() < grant.use_by:
                self._used.append(grant)
                return True
            self._on_end(grant.lease_id, None)
        return not self.is_bound

    def ask(self) -> None:
        """A call was refused that could have been a probe."""
        if self.is_bound and (now := self._clock()) >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            self._on_demand()

    def ended(self, *, succeeded: bool | None) -> None:
        """A probe ended, but did not fail. One that says nothing leaves its lease to the next."""
        grant = _first(self._used)
        if grant is None:
            return
        if succeeded is None and self._clock() < grant.use_by:
            self._unused.appendleft(grant)
        else:
            self._on_end(grant.lease_id, succeeded)

    # Called by the member.

    def grant(self, grant: Grant) -> None:
        """Admit one more probe."""
        self._unused.append(grant)

    def take_used(self) -> str | None:
        """The lease of the oldest probe that is running; None if it needed none."""
        grant = _first(self._used)
        return None if grant is None else grant.lease_id

    def take_expired(self) -> list[str]:
        """The leases that were not used in time."""
        expired = []
        while (grant := _first(self._unused)) is not None:
            if self._clock() < grant.use_by:
                self._unused.appendleft(grant)
                break
            expired.append(grant.lease_id)
        return expired

    def clear(self) -> None:
        """Forget all leases."""
        self._unused.clear()
        self._used.clear()


def _first(grants: deque[Grant]) -> Grant | None:
    """Take the oldest; None if there is none, perhaps because another thread has just taken it."""
    try:
        return grants.popleft()
    except IndexError:
        return None
