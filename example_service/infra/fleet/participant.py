"""The state of one circuit in one member: which changes it sends, and how it reacts to records.

This is synchronous code without I/O. `at` is a time on the member's own clock in seconds, `now` one
on the store's clock in milliseconds. `Member` reports the events of its breakers, writes the
records that `next_change` returns, and applies the returned instructions to the breakers.
"""

import math
import uuid
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from example_service.infra.fleet.commands import (
    USE_SECONDS,
    Acquire,
    Command,
    Fail,
    Move,
    Release,
    Restore,
    SetMode,
    Succeed,
    Vote,
    Withdraw,
    needs_probe,
)
from example_service.infra.fleet.record import Record


class Rules(NamedTuple):
    """The settings of a breaker that concern the fleet. Times are in seconds."""

    recovery_timeout: float
    success_threshold: int
    half_open_max_calls: int
    probe_timeout: float


@dataclass(frozen=True, slots=True)
class FollowOpen:
    """Open the breakers of this process.

    Attributes:
        seconds: How long to stay open, in seconds.
        reason: Why the circuit opened, and the member that opened it.
        reopenings: How many recoveries have failed so far; this determines the backoff.
    """

    seconds: float
    reason: str
    reopenings: int


@dataclass(frozen=True, slots=True)
class FollowClose:
    """Close the breakers of this process."""

    reason: str


@dataclass(frozen=True, slots=True)
class FollowOrder:
    """Set the mode that an operator has chosen, or reset the breakers.

    Attributes:
        mode: The mode to set; None resets the breakers.
        reason: The reason that the operator gave.
        seconds: How long the mode still applies, in seconds; None until the next reset.
    """

    mode: str | None
    reason: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Grant:
    """Permit one probe.

    Attributes:
        lease_id: The lease of the probe.
        use_by: When the lease expires unless a probe starts, in seconds on the member's clock.
    """

    lease_id: str
    use_by: float


Instruction: TypeAlias = FollowOpen | FollowClose | FollowOrder | Grant


@dataclass(slots=True)
class _OwnOpening:
    """An opening decided by this process that the fleet has not adopted.

    Attributes:
        opened_at: When, in seconds on the member's clock.
        until: When its wait ends, on the same clock.
        reason: Why.
        reopenings: How many recoveries had failed.
        earliest: When it was at the earliest, in milliseconds on the store's clock, because this
            process already knew that the fleet had closed the circuit. The estimate of that clock
            may be a few milliseconds behind.
    """

    opened_at: float
    until: float
    reason: str
    reopenings: int
    earliest: int

    def on_store_clock(self, at: float, now: int) -> int:
        """When, in milliseconds on the store's clock."""
        return max(now - _milliseconds(at - self.opened_at), self.earliest)


class Participant:
    """The state of one circuit in one member.

    Args:
        member: The name of the member.
        quorum: How many members must open a circuit before it opens for the whole fleet.

    Attributes:
        record: The newest known record.
        is_connected: Whether the member is connected to the store.
    """

    # A process may have thousands, so they are kept small.
    __slots__ = (
        "_in_flight",
        "_is_open",
        "_member",
        "_opening",
        "_order_id",
        "_outbox",
        "_own_opening",
        "_quorum",
        "_received_at",
        "is_connected",
        "record",
    )

    def __init__(self, member: str, *, quorum: int = 1) -> None:
        self.record = Record()
        self.is_connected = False
        self._member = member
        self._quorum = quorum
        self._outbox: tuple[Command, ...] = ()
        self._in_flight: Command | None = None
        self._own_opening: _OwnOpening | None = None
        self._received_at = -math.inf
        self._is_open = False
        self._opening: tuple[int, str] | None = None
        self._order_id: str | None = None

    @property
    def is_bound(self) -> bool:
        """Whether a probe needs a lease."""
        if not self.is_connected:
            return False
        return self.record.is_open or (self._quorum == 1 and self._sends(Vote))

    @property
    def is_idle(self) -> bool:
        """Whether the circuit is closed and has neither a record nor pending changes."""
        return not (self._is_open or self._outbox or self.record.version)

    @property
    def has_changes(self) -> bool:
        """Whether any changes are waiting to be written."""
        return bool(self._outbox)

    # Events of the breakers of this process, and orders of operators.

    def opened(
        self,
        at: float,
        now: int,
        rules: Rules,
        *,
        wait_seconds: float,
        reason: str,
        reopenings: int,
        lease_id: str | None,
    ) -> None:
        """A breaker opened by its own rules. `lease_id` is that of a failed probe, or None."""
        self._is_open = True
        earliest = self.record.closed_at + 1 if at >= self._received_at else 0
        self._own_opening = _OwnOpening(at, at + wait_seconds, reason, reopenings, earliest)
        if not self.is_connected:
            return
        if lease_id is None:
            self._vote(at, now, rules)
        else:
            until = now + _milliseconds(wait_seconds)
            self._send(Fail(lease_id, self._member, now, until, reason))

    def closed(self) -> None:
        """A breaker closed by its own rules, or was reset by the application."""
        # If the fleet's circuit is open, other breakers with this name are still open.
        self._is_open = self.record.is_open
        self._own_opening = None
        self._drop_votes()
        if self._member in self.record.votes:
            self._send(Withdraw(self._member))

    def probe_ended(self, lease_id: str, rules: Rules, *, succeeded: bool | None) -> None:
        """A probe succeeded or had no outcome that counts. Failures are reported to `opened`."""
        if not self.is_connected:
            return
        if succeeded:
            self._send(Succeed(lease_id, self._member, rules.success_threshold))
        else:
            self._send(Release(lease_id))

    def wants_probe(self, now: int, rules: Rules) -> bool:
        """A call was refused after the open period. Returns whether a lease is being requested."""
        if not self.is_connected:
            return False
        if self._sends(Acquire):
            return True
        limit, threshold = rules.half_open_max_calls, rules.success_threshold
        if not needs_probe(self.record, now, limit, threshold):
            return False
        lease_id = uuid.uuid4().hex[:12]
        self._send(Acquire(lease_id, self._member, rules.probe_timeout, limit, threshold))
        return True

    def order(self, mode: str | None, reason: str, seconds: float | None, *, opens: bool) -> str:
        """An operator set a mode or reset the circuit. Returns the id of the order."""
        order_id = uuid.uuid4().hex[:12]
        self._drop_votes()
        self._send(SetMode(order_id, mode, reason, seconds, opens, self._member))
        return order_id

    def verdict(self, now: int) -> FollowOpen | None:
        """How long the fleet keeps the circuit open, and why; None if it is closed or half-open."""
        record = self.record
        if not record.is_waiting(now):
            return None
        seconds = math.inf if record.until is None else (record.until - now) / 1000
        reason = f"{record.reason} (opened by {record.opener})"
        return FollowOpen(seconds, reason, record.reopenings)

    # Events of the store.

    def connected(self, at: float, now: int, rules: Rules) -> None:
        """The store is available again. Called once its records have been received."""
        self.is_connected = True
        if self._own_opening is not None:
            self._vote(at, now, rules)

    def disconnected(self) -> None:
        """The store is unavailable, so the breakers of this process decide independently."""
        self.is_connected = False
        if self._own_opening is not None:
            # The next store may have another clock.
            self._own_opening.earliest = 0
        for command in self._outbox:
            if isinstance(command, Restore) and self.record.version < command.known.version:
                self.record = command.known
        # Leases are given up, and votes are repeated after the next connection.
        self._outbox = ()

    def restore(self, known: Record, stored: Record) -> None:
        """The store has lost the record `known`, and has the older or empty record `stored`."""
        self.record = stored
        self._outbox = (Restore(known), *self._outbox)

    def clock_set_back(self, milliseconds: int) -> None:
        """The store's clock was moved by `milliseconds`, which are negative."""
        if self._own_opening is not None:
            self._own_opening.earliest = 0
        if self._opening is not None:
            opened_at, opener = self._opening
            self._opening = (opened_at + milliseconds, opener)
        self._outbox = tuple(
            Restore(command.known.moved(milliseconds)) if isinstance(command, Restore) else command
            for command in self._outbox
        )
        if self.record.version:
            self.record = self.record.moved(milliseconds)
            self._send(Move(self.record))

    def receive(self, record: Record, at: float, now: int) -> list[Instruction]:
        """A record arrived. It is ignored unless it is newer than the known one."""
        if record.version <= self.record.version:
            return []
        self.record = record
        self._received_at = at
        return self._instructions(at, now)

    def forget(self, version: int, at: float, now: int) -> list[Instruction]:
        """The store no longer has a record. `version` is its counter when it was read."""
        if not self.record.version:
            return []
        self.record = Record(version)
        instructions = self._instructions(at, now)
        self.record = Record()
        return instructions

    def next_change(self, now: int) -> Record | None:
        """The record to write next; None if there is none.

        A command stays first in the queue until `accepted` is called or it has no effect.
        """
        while self._outbox:
            self._in_flight = self._outbox[0]
            changed = self._in_flight.apply(self.record, now)
            if changed is not None:
                return changed
            self._outbox = self._outbox[1:]
        return None

    def accepted(self, record: Record, at: float, now: int) -> list[Instruction]:
        """The change that `next_change` returned was written; `record` is the result."""
        command = self._in_flight
        if self._outbox and self._outbox[0] is command:
            self._outbox = self._outbox[1:]
        if isinstance(command, Vote | Fail) and record.is_open:
            self._own_opening = None
        instructions = self.receive(record, at, now)
        if isinstance(command, Acquire) and self.is_connected:
            instructions.append(Grant(command.lease_id, at + USE_SECONDS))
        return instructions

    def _send(self, command: Command) -> None:
        self._outbox = (*self._outbox, command)

    def _sends(self, kind: type[Command]) -> bool:
        return any(isinstance(command, kind) for command in self._outbox)

    def _drop_votes(self) -> None:
        self._outbox = tuple(command for command in self._outbox if not isinstance(command, Vote))

    def _vote(self, at: float, now: int, rules: Rules) -> None:
        own = self._own_opening
        if own is None or own.until <= at or self._sends(Vote):
            return
        self._send(
            Vote(
                self._member,
                own.on_store_clock(at, now),
                now + _milliseconds(own.until - at),
                own.reason,
                own.reopenings,
                _milliseconds(rules.recovery_timeout),
                self._quorum,
            )
        )

    def _instructions(self, at: float, now: int) -> list[Instruction]:
        """The instructions that result from the record that has just arrived."""
        record, instructions = self.record, list[Instruction]()
        order = record.order
        if order is not None and order.id != self._order_id:
            self._order_id = order.id
            self._own_opening = None
            seconds = None if order.until is None else (order.until - now) / 1000
            if order.mode is None or seconds is None or seconds > 0:
                instructions.append(FollowOrder(order.mode, order.reason, seconds))
                self._is_open = record.is_open
                self._opening = (record.opened_at, record.opener)
        if record.is_open:
            instructions += self._follow_open(now)
        elif self._is_open and not self._is_newer(record.closed_at, at, now):
            self._is_open = False
            self._own_opening = None
            self._drop_votes()
            instructions.append(FollowClose(record.reason or "the fleet closed it"))
        if not record.is_open:
            self._opening = None
        return instructions

    def _follow_open(self, now: int) -> list[Instruction]:
        record = self.record
        opening = (record.opened_at, record.opener)
        if opening == self._opening:
            return []
        self._opening = opening
        verdict = self.verdict(now)
        if verdict is None:
            return []
        self._is_open = True
        self._own_opening = None
        self._drop_votes()
        return [verdict]

    def _is_newer(self, closed_at: int, at: float, now: int) -> bool:
        """Whether the breakers of this process opened after the fleet closed the circuit."""
        own = self._own_opening
        return own is not None and own.on_store_clock(at, now) > closed_at


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
