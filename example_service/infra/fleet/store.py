"""The interface of a store, through which the members of a fleet share circuits."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from example_service.core.fault_log import FaultLog
from example_service.infra.fleet.record import Record


class StoreError(Exception):
    """An operation of the store failed. The message says why."""


class Beat(NamedTuple):
    """The reply to a heartbeat.

    Attributes:
        now: The store's clock, in milliseconds.
        epoch: Identifies the contents of the store. It changes when the store has lost them.
        counter: The highest version of any record so far.
        members: How many processes have recently sent a heartbeat.
    """

    now: int
    epoch: str
    counter: int
    members: int


class Snapshot(NamedTuple):
    """The contents of the store.

    Attributes:
        now: The store's clock, in milliseconds.
        epoch: As in `Beat`.
        counter: As in `Beat`.
        records: All records, by circuit name.
    """

    now: int
    epoch: str
    counter: int
    records: Mapping[str, Record]


class Change(NamedTuple):
    """One record to write.

    Attributes:
        name: The name of the circuit.
        expected: The version that the store must have for the write to succeed; 0 for no record.
        record: The new record. The store assigns its version.
        kept: How long the store keeps the record, in milliseconds.
    """

    name: str
    expected: int
    record: Record
    kept: int


class Written(NamedTuple):
    """The reply to a write.

    Attributes:
        now: The store's clock, in milliseconds.
        accepted: The names of the circuits whose records were written.
        current: The current record of each circuit in the request; version 0 if it has none.
    """

    now: int
    accepted: frozenset[str]
    current: Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification that a record was written, by this or another member.

    Attributes:
        name: The name of the circuit.
        record: The new record.
        now: The store's clock at the time of the write, in milliseconds.
    """

    name: str
    record: Record
    now: int


class Store(Protocol):
    """Storage shared by the members of a fleet. Operations raise `StoreError` if they fail."""

    @property
    def faults(self) -> FaultLog:
        """Where a member logs that it cannot reach the store."""
        ...

    async def connect(self) -> None:
        """Prepare the store for use. Called again after an error."""
        ...

    async def beat(self, member: str, known: int) -> Beat:
        """Record a heartbeat of a member, and raise the counter to `known` if it is lower."""
        ...

    async def read(self) -> Snapshot:
        """Read all records."""
        ...

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """Write each record whose expected version matches the stored one."""
        ...

    def changes(self) -> AsyncIterator[Notice | None]:
        """Wait for writes. None means that records changed: call `read`.

        The first item is always None. It arrives once no later write can be missed.
        """
        ...

    async def close(self, member: str) -> None:
        """Remove the member from the store and close connections. Never raises."""
        ...
