"""The changes that a member can make to the record of a circuit.

A command is a pure function of the current record and the store's time in milliseconds. It returns
the new record, or None if nothing changes. If another member writes first, the command is applied
again to the record which that member wrote.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from example_service.infra.fleet.record import Lease, Order, Record

USE_SECONDS = 1.0
"""Seconds within which a probe must start under a new lease. Its own time limit starts then."""


class Command(Protocol):
    """A change to one record."""

    def apply(self, record: Record, now: int) -> Record | None:
        """Return the changed record, or None if nothing changes."""
        ...


@dataclass(frozen=True, slots=True)
class Vote:
    """Vote to open the circuit, because a breaker opened by its own rules.

    Attributes:
        member: The member whose breaker opened.
        opened_at: When it opened, in milliseconds on the store's clock.
        until: When its open period ends, in milliseconds on the store's clock.
        reason: Why it opened.
        reopenings: How many recoveries have failed since it was last closed.
        window: How long the vote counts, in milliseconds.
        quorum: How many members must vote before the circuit opens for the whole fleet.
    """

    member: str
    opened_at: int
    until: int
    reason: str
    reopenings: int
    window: int
    quorum: int

    def apply(self, record: Record, now: int) -> Record | None:
        """Open the circuit if the quorum is reached; otherwise store the vote."""
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
    """Withdraw a vote, because the breaker that opened has closed again."""

    member: str

    def apply(self, record: Record, now: int) -> Record | None:  # noqa: ARG002
        """Remove the member's vote."""
        if self.member not in record.votes:
            return None
        votes = {member: ends for member, ends in record.votes.items() if member != self.member}
        return replace(record, votes=votes)


@dataclass(frozen=True, slots=True)
class Acquire:
    """Request a lease for a probe, because a call was refused after the open period.

    Attributes:
        lease_id: The id of the new lease.
        member: The member that requests it.
        seconds: How long the probe may take, in seconds.
        limit: The maximum number of leases in the fleet at the same time.
        threshold: How many successful probes close the circuit. No more leases are granted than
            successes are missing.
    """

    lease_id: str
    member: str
    seconds: float
    limit: int
    threshold: int

    def apply(self, record: Record, now: int) -> Record | None:
        """Grant the lease if the circuit is half-open and another probe is needed and allowed."""
        if not needs_probe(record, now, self.limit, self.threshold):
            return None
        leases = record.unexpired_leases(now)
        deadline = now + round(1000 * (self.seconds + USE_SECONDS))
        leases[self.lease_id] = Lease(self.member, deadline)
        return replace(record, leases=leases)


@dataclass(frozen=True, slots=True)
class Succeed:
    """Report that a probe succeeded.

    Attributes:
        lease_id: The lease of the probe.
        member: The member that ran it.
        threshold: How many successful probes close the circuit.
    """

    lease_id: str
    member: str
    threshold: int

    def apply(self, record: Record, now: int) -> Record | None:
        """Count the success, and close the circuit when the threshold is reached."""
        leases = record.unexpired_leases(now)
        if leases.pop(self.lease_id, None) is None:
            return None
        successes = record.successes + 1
        if successes < self.threshold:
            return replace(record, successes=successes, leases=leases)
        return closed(record, now, f"{successes} probes succeeded in the fleet")


@dataclass(frozen=True, slots=True)
class Fail:
    """Report that a probe failed.

    Attributes:
        lease_id: The lease of the probe.
        member: The member that ran it.
        failed_at: When it failed, in milliseconds on the store's clock.
        until: When the new open period ends, in milliseconds on the store's clock.
        reason: Why the probe failed.
    """

    lease_id: str
    member: str
    failed_at: int
    until: int
    reason: str

    def apply(self, record: Record, now: int) -> Record | None:
        """Open the circuit again for the whole fleet."""
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
    """Return a lease that was not used, or whose probe neither succeeded nor failed."""

    lease_id: str

    def apply(self, record: Record, now: int) -> Record | None:  # noqa: ARG002
        """Remove the lease."""
        if self.lease_id not in record.leases:
            return None
        leases = {key: lease for key, lease in record.leases.items() if key != self.lease_id}
        return replace(record, leases=leases)


@dataclass(frozen=True, slots=True)
class SetMode:
    """Set the mode that an operator has chosen, or reset the circuit.

    Attributes:
        order_id: The unique id of the order.
        mode: The mode to set; None resets the circuit.
        reason: The reason that the operator gave.
        seconds: How long the mode applies, in seconds; None until the next reset.
        opens: Whether the mode refuses every call. Probes then follow when it ends.
        member: The member that received the order.
    """

    order_id: str
    mode: str | None
    reason: str
    seconds: float | None
    opens: bool
    member: str

    def apply(self, record: Record, now: int) -> Record | None:
        """Replace the record by a new one with this mode."""
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
    """Restore a record that the store has lost.

    Attributes:
        known: The record as the member knows it, with times on the store's current clock.
    """

    known: Record

    def apply(self, record: Record, now: int) -> Record | None:
        """Write the known record back, unless the store has a newer one."""
        if record.version >= self.known.version or record.is_open or record.order is not None:
            return None
        if not self.known.is_open and self.known.mode(now) is None:
            return None
        return replace(self.known, votes={})


@dataclass(frozen=True, slots=True)
class Move:
    """Adjust a record to the store's clock, which was set back.

    Attributes:
        moved: The record with its times on the clock as it is now.
    """

    moved: Record

    def apply(self, record: Record, now: int) -> Record | None:  # noqa: ARG002
        """Write the moved record, unless another one was written since."""
        return self.moved if record.version == self.moved.version else None


def needs_probe(record: Record, now: int, limit: int, threshold: int) -> bool:
    """Whether a lease can be granted. The arguments are those of `Acquire`."""
    if not record.is_half_open(now):
        return False
    # At least one, because a member with a higher threshold may have counted the successes.
    missing = max(1, threshold - record.successes)
    return len(record.unexpired_leases(now)) < min(limit, missing)


def closed(record: Record, now: int, reason: str) -> Record:
    """The record of a circuit that has just closed. It keeps the operator's last order."""
    return Record(closed_at=now, reason=reason, order=record.order)
