"""The task that connects the breakers of this process to the store."""

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import Final

from example_service.infra.fleet.breakers import Breakers
from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.gates import MOST_CIRCUITS, Gates
from example_service.infra.fleet.participant import (
    FollowClose,
    FollowOpen,
    Grant,
    Instruction,
    Obey,
    Participant,
)
from example_service.infra.fleet.record import Record
from example_service.infra.fleet.store import Beat, Change, Notice, Snapshot, Store, StoreError

logger = logging.getLogger(__name__)

FIRST_READ_SECONDS: Final = 2.0
"""How long a process that starts waits for a store that neither replies nor fails."""

BEAT_SECONDS: Final = 0.5
READ_SECONDS: Final = 30.0
ORDER_SECONDS: Final = 2.0

_FIRST_RETRY_SECONDS: Final = 0.2
_LONGEST_RETRY_SECONDS: Final = 1.0
_MOST_CHANGES: Final = 100


class Member:
    """This process as a member of the fleet.

    Args:
        store: Where the members meet.
        breakers: Those of this process.
        name: Of this process, different from all others; made up if left out.
        quorum: Members that must have opened before all do.
        clock: A monotonic clock, in seconds.

    Attributes:
        is_connected: Whether the store can be reached.
        members: How many processes take part, as of the last beat.
        version: The highest version that this process has acted on.
    """

    def __init__(
        self,
        store: Store,
        breakers: Breakers,
        *,
        name: str | None = None,
        quorum: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name or uuid.uuid4().hex[:12]
        self.is_connected = False
        self.members = 0
        self.version = 0
        self._store = store
        self._breakers = breakers
        self._quorum = quorum
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._participants: dict[str, Participant] = {}
        self._gates = Gates(
            lambda name: self._call(lambda: self._demand(name)),
            lambda name, lease_id, succeeded: self._call(
                lambda: self._probe_ended(name, lease_id, succeeded=succeeded)
            ),
            clock=clock,
        )
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._orders: dict[str, asyncio.Future[int]] = {}
        self._epoch: str | None = None
        # The store's clock in milliseconds, and this one when the reply arrived.
        self._store_time = (0, 0.0)
        self._announced_counter = 0
        self._read_due = 0.0
        self._has_warned = self._is_ending = False
        self._has_tried = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part until the end of the block.

        The block begins when the breakers follow what is in the store, or at the first sign that it
        cannot be read.
        """
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._run())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_tried.wait(), FIRST_READ_SECONDS)
            yield
        finally:
            # A task group that fails at this moment would swallow the cancellation alone.
            self._is_ending = True
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._disconnect()
            await self._store.close(self.name)

    # What the breakers of this process report, from any thread.

    def opened(self, name: str, wait_seconds: float, reason: str, reopenings: int) -> None:
        """The breaker of a name opened by its own rules."""
        gate = self._gate(name)
        if gate is None:
            return
        lease_id = gate.take_used()
        gate.clear()
        gate.is_bound = self.is_connected and self._quorum == 1
        at = self._clock()

        def note() -> None:
            participant = self._participant(name)
            participant.opened(
                at,
                self._now(at),
                self._breakers.rules(name),
                wait_seconds=wait_seconds,
                reason=reason,
                reopenings=reopenings,
                lease_id=lease_id,
            )
            self._changed(name)

        self._call(note)

    def closed(self, name: str) -> None:
        """The breaker of a name closed by its own rules, or was reset by code."""

        def note() -> None:
            if name in self._participants:
                self._participants[name].closed()
                self._changed(name)

        self._call(note)

    # What operators want.

    async def order(
        self, name: str, mode: str | None, reason: str, seconds: float | None, *, opens: bool
    ) -> int:
        """Set a mode in the whole fleet, or reset. Returns the version of the record.

        Raises:
            StoreError: The store did not take it, or not in time.
        """
        if not self.is_connected:
            raise StoreError("this process is not connected to the store of the fleet")
        participant = self._participant(name)
        order_id = participant.order(mode, reason, seconds, opens=opens)
        written = self._orders[order_id] = asyncio.get_running_loop().create_future()
        self._changed(name)
        try:
            return await asyncio.wait_for(written, ORDER_SECONDS)
        except TimeoutError as error:
            raise StoreError("the store did not reply in time") from error
        finally:
            del self._orders[order_id]

    def verdict(self, name: str) -> FollowOpen | None:
        """What a breaker that is created now has to follow; None if it starts closed."""
        participant = self._participants.get(name)
        return None if participant is None else participant.verdict(self._now(self._clock()))

    def records(self) -> dict[str, Record]:
        """The records that this process knows, by name."""
        return {name: one.record for name, one in self._participants.items() if one.record.version}

    # Connecting.

    async def _run(self) -> None:
        retry_seconds, is_first = _FIRST_RETRY_SECONDS, True
        while True:
            try:
                await self._session()
            except* StoreError as errors:
                if self.is_connected:
                    retry_seconds = _FIRST_RETRY_SECONDS
                # While a service starts its event loop is busy, and the first reply may be late.
                if self.is_connected or not (self._has_warned or is_first):
                    self._warn(errors.exceptions[0])
            except* Exception:
                logger.exception("The fleet cannot be reached because of an unexpected error.")
            self._disconnect()
            is_first = False
            self._has_tried.set()
            if self._is_ending:
                return
            await asyncio.sleep(retry_seconds * random.uniform(0.7, 1.3))  # noqa: S311
            retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)

    async def _session(self) -> None:
        await self._store.connect()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._send())
            tasks.create_task(self._beat())

    async def _listen(self) -> None:
        if self._epoch is None:
            # What can be read applies to the first request, even where nothing can be written.
            await self._read()
        self._note_beat(await self._store.beat(self.name, self.version))
        async for notice in self._store.changes():
            if notice is None:
                await self._read()
                self._connect()
            else:
                self._receive_notice(notice)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311
            beat = await self._store.beat(self.name, self.version)
            if not self.is_connected:
                continue
            # What the counter had reached at the last beat must have arrived by now.
            has_missed = self.version < self._announced_counter
            has_forgotten = beat.epoch != self._epoch or beat.counter < self.version
            self._note_beat(beat)
            if has_missed or has_forgotten or self._clock() >= self._read_due:
                await self._read(has_forgotten=has_forgotten)
            self._return_unused()

    def _note_beat(self, beat: Beat) -> None:
        self._announced_counter = beat.counter
        self.members = beat.members
        self._store_time = (beat.now, self._clock())

    async def _read(self, *, has_forgotten: bool = False) -> None:
        snapshot = await self._store.read()
        at = self._clock()
        self._read_due = at + READ_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
        has_forgotten |= self._epoch not in (None, snapshot.epoch)
        has_forgotten |= snapshot.counter < self.version
        shift = snapshot.now - self._now(at) if self._epoch not in (None, snapshot.epoch) else 0
        self._store_time = (snapshot.now, at)
        self._epoch = snapshot.epoch or None
        if has_forgotten:
            self._restore_into(snapshot, shift)
        for number, (name, record) in enumerate(snapshot.records.items()):
            self._receive(name, record, snapshot.now)
            if number % _MOST_CHANGES == 0:
                await asyncio.sleep(0)  # Thousands at once would delay every request.
        for name in [one for one in self._participants if one not in snapshot.records]:
            self._forget(name, snapshot)
        self.version = max(self.version, snapshot.counter)

    def _connect(self) -> None:
        if self.is_connected:
            return
        self.is_connected = True
        at = self._clock()
        for name, participant in self._participants.items():
            participant.connected(at, self._now(at), self._breakers.rules(name))
            self._changed(name)
        if self._has_warned:
            logger.warning("The fleet is back at %s.", self._store.address)
            self._has_warned = False
        self._has_tried.set()

    def _disconnect(self) -> None:
        self.is_connected = False
        for participant in self._participants.values():
            participant.disconnected()
        self._gates.open()
        for written in self._orders.values():
            if not written.done():
                written.set_exception(StoreError("the connection to the store was lost"))

    def _warn(self, error: BaseException) -> None:
        self._has_warned = True
        logger.warning(
            "The fleet cannot be reached at %s: %s. This process works on its own.",
            self._store.address,
            error,
        )

    # What arrives from the store.

    def _receive_notice(self, notice: Notice) -> None:
        self.version = max(self.version, notice.record.version)
        self._receive(notice.name, notice.record, max(notice.now, self._now(self._clock())))

    def _receive(self, name: str, record: Record, now: int) -> None:
        known = self._participants.get(name)
        if known is None and len(self._participants) >= MOST_CIRCUITS:
            self._gate(name)
        elif known is None or known.record.version < record.version:
            self._apply(name, self._participant(name).receive(record, self._clock(), now))

    def _forget(self, name: str, snapshot: Snapshot) -> None:
        participant = self._participants[name]
        if participant.record.version <= snapshot.counter:
            instructions = participant.forget(snapshot.counter, self._clock(), snapshot.now)
            self._apply(name, instructions)
        if participant.is_idle:
            del self._participants[name]
            self._gates.remove(name)
            self._breakers.detach(name)

    def _restore_into(self, snapshot: Snapshot, shift: int) -> None:
        for name, participant in self._participants.items():
            stored = snapshot.records.get(name, Record())
            if stored.version < participant.record.version:
                participant.restore(participant.record.moved(shift), stored)
                self._changed(name)

    def _apply(self, name: str, instructions: list[Instruction]) -> None:
        gate = self._gates.get(name)
        for instruction in instructions:
            match instruction:
                case FollowOpen():
                    self._gates.clear(name)
                    self._breakers.open(name, instruction)
                case FollowClose():
                    self._gates.clear(name)
                    self._breakers.close(name, instruction)
                case Obey():
                    self._gates.clear(name)
                    self._breakers.obey(name, instruction)
                case Grant() if gate is not None:
                    gate.grant(instruction)
        self._changed(name)

    # What is sent to the store.

    def _changed(self, name: str) -> None:
        """Send what a participant has to say, and set its gate."""
        participant = self._participants[name]
        if gate := self._gates.get(name):
            gate.is_bound = participant.is_bound
        if participant.has_changes:
            self._dirty[name] = None
            self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.is_connected and (
                changes := list(islice(self._next_changes(), _MOST_CHANGES))
            ):
                await self._write(changes)

    def _next_changes(self) -> Iterator[Change]:
        now = self._now(self._clock())
        for name in list(self._dirty):
            participant = self._participants.get(name)
            record = None if participant is None else participant.next_change(now)
            if participant is None or record is None:
                del self._dirty[name]
                continue
            yield Change(name, participant.record.version, record, record.expires_in(now))

    async def _write(self, changes: list[Change]) -> None:
        written = await self._store.write(changes, self.version)
        at = self._clock()
        self._store_time = (written.now, at)
        for name, record in written.current.items():
            participant = self._participants[name]
            self.version = max(self.version, record.version)
            if name in written.accepted:
                self._apply(name, participant.accepted(record, at, written.now))
                self._resolve(record)
            elif record.version < participant.record.version:
                await self._read(has_forgotten=True)
            else:
                self._apply(name, participant.receive(record, at, written.now))

    def _resolve(self, record: Record) -> None:
        written = None if record.order is None else self._orders.get(record.order.id)
        if written is not None and not written.done():
            written.set_result(record.version)

    def _return_unused(self) -> None:
        for name, lease_id in self._gates.take_expired():
            self._probe_ended(name, lease_id, succeeded=None)

    # Circuits.

    def _participant(self, name: str) -> Participant:
        participant = self._participants.get(name)
        if participant is None:
            participant = Participant(name, self.name, quorum=self._quorum)
            participant.is_connected = self.is_connected
            self._participants[name] = participant
            self._gate(name)
        return participant

    def _gate(self, name: str) -> LeaseGate | None:
        """The gate of a name, which its breakers ask from now on; None if there are too many."""
        gate = self._gates.get_or_create(name)
        if gate is not None:
            self._breakers.attach(name, gate)
        return gate

    def _demand(self, name: str) -> None:
        participant = self._participants.get(name)
        if participant is not None:
            participant.wants_probe(self._now(self._clock()), self._breakers.rules(name))
            self._changed(name)

    def _probe_ended(self, name: str, lease_id: str, *, succeeded: bool | None) -> None:
        participant = self._participants.get(name)
        if participant is not None:
            participant.probe_ended(lease_id, self._breakers.rules(name), succeeded=succeeded)
            self._changed(name)

    def _now(self, at: float) -> int:
        """The store's clock, never ahead of it, in milliseconds."""
        now, read_at = self._store_time
        return now + int(1000 * (at - read_at))

    def _call(self, note: Callable[[], None]) -> None:
        """Run something on the event loop of the member, soon."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(note)
