"""What members may change in the record of a circuit.

Each command is given the record, the store's time and nothing else, and returns the new record, or
None where there is nothing to change. A member decides again when another was faster.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from example_service.infra.fleet.record import Lease, Order, Record

USE_SECONDS = 1.0
"""A lease has to be used within this time; the probe's own time limit begins then."""


class Command(Protocol):
    """A change that a member wants."""

    def apply(self, record: Record, now: int) -> Record | None:
        """The record after the change; None for no change."""
        ...


@dataclass(frozen=True, slots=True)
class Vote:
    """A breaker opened by its own rules.

    Attributes:
        member: Whose breaker.
        opened_at: When, on the store's clock.
        until: When its wait ends, on the store's clock.
        reason: What opened it.
        reopenings: Failed recoveries before.
        window: Milliseconds for which the vote counts.
        quorum: Votes that open the circuit for all.
    """

    member: str
    opened_at: int
    until: int
    reason: str
    reopenings: int
    window: int
    quorum: int

    def apply(self, record: Record, now: int) -> Record | None:
        """Open the circuit, or keep the vote while there are too few."""
        if self.until <= now or self.opened_at <= record.closed_at:
            return None
        if record.is_waiting(now) or (record.is_open and self.opened_at <= record.opened_at):
            return None
        votes = {member: ends for member, ends in record.votes.items() if now < ends}
        votes[self.member] = self.opened_at + self.window
        if len(votes) < self.quorum and not record.is_open:
            return None if votes == record.votes else replace(record, votes=votes)
        return replace(
            record,
            is_open=True,
            opened_at=max(self.opened_at, record.opened_at + 1),
            until=self.until,
            opener=self.member,
            reason=self.reason,
            reopenings=self.reopenings,
            successes=0,
            leases={},
            votes={},
        )


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A breaker that had opened on its own has closed again."""

    member: str

    def apply(self, record: Record, now: int) -> Record | None:  # noqa: ARG002
        """Take the vote back."""
        if self.member not in record.votes:
            return None
        votes = {member: ends for member, ends in record.votes.items() if member != self.member}
        return replace(record, votes=votes)


@dataclass(frozen=True, slots=True)
class Acquire:
    """A call was refused after the wait, so a member wants to probe.

    Attributes:
        lease_id: Of the new lease.
        member: Its owner.
        seconds: How long the probe may take.
        limit: Leases at once in the whole fleet.
    """

    lease_id: str
    member: str
    seconds: float
    limit: int

    def apply(self, record: Record, now: int) -> Record | None:
        """Grant a lease if there is room for one."""
        if not record.is_half_open(now):
            return None
        leases = record.unexpired_leases(now)
        if len(leases) >= self.limit:
            return None
        deadline = now + round(1000 * (self.seconds + USE_SECONDS))
        leases[self.lease_id] = Lease(self.member, deadline)
        return replace(record, leases=leases)


@dataclass(frozen=True, slots=True)
class Succeed:
    """A probe succeeded.

    Attributes:
        lease_id: Under which lease.
        member: Its owner.
        threshold: Successes that close the circuit.
    """

    lease_id: str
    member: str
    threshold: int

    def apply(self, record: Record, now: int) -> Record | None:
        """Count the success; the last one closes the circuit."""
        leases = record.unexpired_leases(now)
        if leases.pop(self.lease_id, None) is None:
            return None
        successes = record.successes + 1
        if successes < self.threshold:
            return replace(record, successes=successes, leases=leases)
        return closed(record, now, f"{successes} probes succeeded in the fleet")


@dataclass(frozen=True, slots=True)
class Fail:
    """A probe failed.

    Attributes:
        lease_id: Under which lease.
        member: Its owner.
        failed_at: When, on the store's clock.
        until: When the new wait ends, on the store's clock.
        reason: What the probe died of.
    """

    lease_id: str
    member: str
    failed_at: int
    until: int
    reason: str

    def apply(self, record: Record, now: int) -> Record | None:
        """Open the circuit again, for all."""
        if self.lease_id not in record.unexpired_leases(now):
            return None
        return replace(
            record,
            opened_at=max(self.failed_at, record.opened_at + 1),
            until=self.until,
            opener=self.member,
            reason=self.reason,
            reopenings=record.reopenings + 1,
            successes=0,
            leases={},
        )


@dataclass(frozen=True, slots=True)
class Release:
    """A probe ended without a verdict, or a lease was not used."""

    lease_id: str

    def apply(self, record: Record, now: int) -> Record | None:  # noqa: ARG002
        """Give the lease back."""
        if self.lease_id not in record.leases:
            return None
        leases = {key: lease for key, lease in record.leases.items() if key != self.lease_id}
        return replace(record, leases=leases)


@dataclass(frozen=True, slots=True)
class SetMode:
    """An operator set a mode, or reset.

    Attributes:
        order_id: Different for each order.
        mode: The mode; None for a reset.
        reason: Why, in the operator's words.
        seconds: How long; None for not before a reset.
        opens: Whether the mode refuses every call, so that probes follow its end.
        member: The member that took the order.
    """

    order_id: str
    mode: str | None
    reason: str
    seconds: float | None
    opens: bool
    member: str

    def apply(self, record: Record, now: int) -> Record | None:
        """Start again in the mode."""
        until = None if self.seconds is None else now + round(1000 * self.seconds)
        order = Order(self.order_id, self.mode, self.reason, until)
        if not self.opens:
            return replace(closed(record, now, self.reason), order=order)
        return Record(
            is_open=True,
            opened_at=max(now, record.opened_at + 1),
            until=until,
            opener=self.member,
            reason=self.reason,
            closed_at=record.closed_at,
            order=order,
        )


@dataclass(frozen=True, slots=True)
class Restore:
    """The store has forgotten a record that a member knows.

    Attributes:
        known: The record, on the store's present clock.
    """

    known: Record

    def apply(self, record: Record, now: int) -> Record | None:
        """Write it back, unless there is a newer one."""
        if record.version >= self.known.version or record.is_open or record.order is not None:
            return None
        if not self.known.is_open and self.known.mode(now) is None:
            return None
        return replace(self.known, votes={})


def closed(record: Record, now: int, reason: str) -> Record:
    """The record after the fleet closed the circuit; a mode that applies goes on."""
    return Record(closed_at=now, reason=reason, order=record.order)
