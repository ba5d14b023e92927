"""The interface that a store offers to the fleet."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from example_service.infra.fleet.record import Record


class StoreError(Exception):
    """The store did not do what was asked of it; the text says why."""


class Beat(NamedTuple):
    """The reply to a sign of life.

    Attributes:
        now: The store's clock, in milliseconds.
        epoch: Another text whenever the store has started without its contents.
        counter: The highest version that it has given to a record.
        members: How many processes have beaten within the last seconds.
    """

    now: int
    epoch: str
    counter: int
    members: int


class Snapshot(NamedTuple):
    """Everything in the store.

    Attributes:
        now: The store's clock, in milliseconds.
        epoch: As in `Beat`.
        counter: As in `Beat`.
        records: By the names of the circuits.
    """

    now: int
    epoch: str
    counter: int
    records: Mapping[str, Record]


class Change(NamedTuple):
    """One record to write.

    Attributes:
        name: Of the circuit.
        expected: The version that the store must have; 0 for none.
        record: What to write; the store gives it its version.
        kept: Milliseconds until it expires.
    """

    name: str
    expected: int
    record: Record
    kept: int


class Written(NamedTuple):
    """The reply to a write.

    Attributes:
        now: The store's clock, in milliseconds.
        accepted: The names whose records were written.
        current: The record of each name now; one that is not there has version 0.
    """

    now: int
    accepted: frozenset[str]
    current: Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class Notice:
    """A record that was written by any member.

    Attributes:
        name: Of the circuit.
        record: Its new record.
        now: The store's clock when it was written, in milliseconds.
    """

    name: str
    record: Record
    now: int


class Store(Protocol):
    """Where the members of a fleet meet. Every operation raises `StoreError` if it fails."""

    @property
    def address(self) -> str:
        """Where the store is, without a password, for the log."""
        ...

    async def connect(self) -> None:
        """Prepare for use, also after an error."""
        ...

    async def beat(self, member: str, known: int) -> Beat:
        """Say that a member is alive, and that it has seen the version `known`."""
        ...

    async def read(self) -> Snapshot:
        """Read everything."""
        ...

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """Write each record whose expected version is the current one."""
        ...

    def changes(self) -> AsyncIterator[Notice | None]:
        """Wait for writes. None means that something was written: read everything.

        The first item is None, when nothing that is written from now on can be missed.
        """
        ...

    async def close(self, member: str) -> None:
        """Take the member off the list, and close connections; raises nothing."""
        ...
