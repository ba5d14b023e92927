"""A store in virtual time that can fail, and the client with which each process reaches it."""

# ruff: noqa: ARG002 - A fake takes the same arguments as the part that it replaces.

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from example_service.core.fault_log import FaultLog
from example_service.infra.fleet.record import Record
from example_service.infra.fleet.store import Beat, Change, Notice, Snapshot, StoreError, Written

TIMEOUT_SECONDS = 0.4
NOTICE_SECONDS = 0.001


def now() -> float:
    """The current virtual time."""
    return asyncio.get_running_loop().time()


@dataclass
class Faults:
    """The faults between the processes and the store."""

    hangs: bool = False
    is_read_only: bool = False
    drop: float = 0.0
    repeat: float = 0.0
    longest_delay: float = 0.0

    @property
    def has_bad_bus(self) -> bool:
        """Whether notices may be lost, repeated or late."""
        return bool(self.drop or self.repeat or self.longest_delay)


class Subscription:
    """The notices on their way to one process."""

    def __init__(self) -> None:
        self._notices: list[Notice] = []
        self._has_some = asyncio.Event()

    def put(self, notice: Notice) -> None:
        """Send a notice."""
        if not self._notices:
            self._has_some.set()
        self._notices.append(notice)

    async def take(self) -> list[Notice]:
        """Wait for notices."""
        await self._has_some.wait()
        await asyncio.sleep(NOTICE_SECONDS)
        self._has_some.clear()
        taken, self._notices = self._notices, []
        return taken


@dataclass
class Server:
    """The store itself, which all processes share.

    Attributes:
        requests: How many requests it has received.
        writes: How many records it was asked to write.
        messages: How many requests, replies and notices there were in each second.
        most_leases: The most unexpired leases that any circuit had at the same time.
    """

    draw: random.Random
    faults: Faults = field(default_factory=Faults)
    epoch: int = 0
    counter: int = 0
    skew: int = 0
    subscriptions: list[Subscription] = field(default_factory=list)
    most_leases: int = 0
    requests: int = 0
    writes: int = 0
    messages: Counter[int] = field(default_factory=Counter)
    _records: dict[str, tuple[Record, int]] = field(default_factory=dict)

    def now(self) -> int:
        """The time of the store's clock, in milliseconds."""
        return int(1000 * now()) + 1_000_000 + self.skew

    def restart_empty(self) -> None:
        """Lose all data, and start again with a different clock."""
        self.epoch += 1
        self.counter = 0
        self.skew += 77_777
        self._records.clear()

    def lose(self, name: str) -> None:
        """Lose one record, because the server has evicted it."""
        self._records.pop(name, None)

    def record(self, name: str) -> Record:
        """The record of a circuit; an empty one if there is none, or if it has expired."""
        record, ends = self._records.get(name, (Record(), 0))
        return record if self.now() < ends else Record()

    def records(self) -> dict[str, Record]:
        """The records that have not expired."""
        at = self.now()
        return {name: record for name, (record, ends) in self._records.items() if at < ends}

    def write(self, change: Change, known: int) -> bool:
        """Write a record if the stored one has the expected version, and notify all processes."""
        self.writes += 1
        before = self.record(change.name)
        if before.version != change.expected:
            return False
        at = self.now()
        self.counter = max(self.counter, known) + 1
        assert self.counter > before.version
        written = change.record.with_version(self.counter)
        self._records[change.name] = (written, at + change.kept)
        self.most_leases = max(self.most_leases, len(written.unexpired_leases(at)))
        self._publish(Notice(change.name, written, at))
        return True

    def _publish(self, notice: Notice) -> None:
        faults = self.faults
        self.messages[int(now())] += len(self.subscriptions)
        for subscription in self.subscriptions:
            if not faults.has_bad_bus:
                subscription.put(notice)
                continue
            if self.draw.random() < faults.drop:
                continue
            copies = 2 if self.draw.random() < faults.repeat else 1
            for _ in range(copies):
                delay = self.draw.random() * faults.longest_delay
                asyncio.get_running_loop().call_later(delay, subscription.put, notice)


class SimulatedStore:
    """The client of one process for this server."""

    def __init__(self, server: Server) -> None:
        self.faults = FaultLog("The store fails: %s", "The store is back")
        self._server = server
        self.is_cut_off = False

    async def connect(self) -> None:
        """Nothing to prepare."""

    async def _reach(self, *, write: bool) -> None:
        server = self._server
        if server.faults.hangs or self.is_cut_off:
            await asyncio.sleep(TIMEOUT_SECONDS)
            raise StoreError("no reply in time")
        server.requests += 1
        server.messages[int(now())] += 2
        await asyncio.sleep(0.001 + server.draw.random() * 0.002)
        if write and server.faults.is_read_only:
            raise StoreError("read-only")

    async def beat(self, member: str, known: int) -> Beat:
        """See `Store`."""
        await self._reach(write=True)
        server = self._server
        counter, server.counter = server.counter, max(server.counter, known)
        return Beat(server.now(), str(server.epoch), counter, len(server.subscriptions))

    async def read(self) -> Snapshot:
        """See `Store`."""
        await self._reach(write=False)
        server = self._server
        return Snapshot(server.now(), str(server.epoch), server.counter, server.records())

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """See `Store`."""
        await self._reach(write=True)
        server = self._server
        accepted = frozenset(change.name for change in changes if server.write(change, known))
        current = {change.name: server.record(change.name) for change in changes}
        return Written(server.now(), accepted, current)

    async def changes(self) -> AsyncIterator[Notice | None]:
        """See `Store`."""
        subscription = Subscription()
        self._server.subscriptions.append(subscription)
        try:
            yield None
            while True:
                for notice in await subscription.take():
                    if not self.is_cut_off:
                        yield notice
        finally:
            self._server.subscriptions.remove(subscription)

    async def close(self, member: str) -> None:
        """Nothing to close."""
