"""Simulate processes, breakers, a dependency and a failing store in virtual time."""

# ruff: noqa: ARG002 - A fake takes the same arguments as the part that it replaces.

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from example_service.core.fault_log import FaultLog
from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.participant import FollowClose, FollowOpen, FollowOrder, Rules
from example_service.infra.fleet.record import Record
from example_service.infra.fleet.store import Beat, Change, Notice, Snapshot, StoreError, Written

NAME = "payment"
RULES = Rules(recovery_timeout=5.0, success_threshold=2, half_open_max_calls=3, probe_timeout=2.0)
FAILURE_THRESHOLD = 3
TIMEOUT_SECONDS = 0.4


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


@dataclass
class Server:
    """The store itself, which all processes share."""

    draw: random.Random
    faults: Faults = field(default_factory=Faults)
    epoch: int = 0
    counter: int = 0
    skew: int = 0
    records: dict[str, tuple[Record, int]] = field(default_factory=dict)
    listeners: list[asyncio.Queue[Notice | None]] = field(default_factory=list)
    most_leases: int = 0
    requests: int = 0

    def now(self) -> int:
        """The time of the store's clock, in milliseconds."""
        return int(1000 * now()) + 1_000_000 + self.skew

    def restart_empty(self) -> None:
        """Lose all data, and start again with a different clock."""
        self.epoch += 1
        self.counter = 0
        self.skew += 77_777
        self.records.clear()

    def current(self) -> dict[str, Record]:
        """The records that have not expired."""
        at = self.now()
        self.records = {name: one for name, one in self.records.items() if at < one[1]}
        return {name: record for name, (record, _) in self.records.items()}

    def publish(self, notice: Notice) -> None:
        """Deliver a notice to every listener, unless the faults drop, repeat or delay it."""
        for listener in self.listeners:
            if self.draw.random() < self.faults.drop:
                continue
            copies = 2 if self.draw.random() < self.faults.repeat else 1
            for _ in range(copies):
                delay = 0.001 + self.draw.random() * self.faults.longest_delay
                asyncio.get_running_loop().call_later(delay, listener.put_nowait, notice)


class SimulatedStore:
    """The client of one process for this server."""

    def __init__(self, server: Server) -> None:
        self.faults = FaultLog("The store fails: %s", "The store is back")
        self._server = server
        self.is_cut_off = False

    async def connect(self) -> None:
        """Nothing to prepare."""

    async def _reach(self, *, write: bool) -> None:
        if self._server.faults.hangs or self.is_cut_off:
            await asyncio.sleep(TIMEOUT_SECONDS)
            raise StoreError("no reply in time")
        self._server.requests += 1
        await asyncio.sleep(0.001 + self._server.draw.random() * 0.002)
        if write and self._server.faults.is_read_only:
            raise StoreError("read-only")

    async def beat(self, member: str, known: int) -> Beat:
        """See `Store`."""
        await self._reach(write=True)
        server = self._server
        counter, server.counter = server.counter, max(server.counter, known)
        return Beat(server.now(), str(server.epoch), counter, len(server.listeners))

    async def read(self) -> Snapshot:
        """See `Store`."""
        await self._reach(write=False)
        server = self._server
        return Snapshot(server.now(), str(server.epoch), server.counter, server.current())

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """See `Store`."""
        await self._reach(write=True)
        server, at = self._server, self._server.now()
        current = server.current()
        accepted = set()
        for name, expected, record, kept in changes:
            before = current.get(name, Record())
            if before.version != expected:
                continue
            server.counter = max(server.counter, known) + 1
            assert server.counter > before.version
            current[name] = written = record.with_version(server.counter)
            server.records[name] = (written, at + kept)
            server.most_leases = max(server.most_leases, len(written.unexpired_leases(at)))
            accepted.add(name)
            server.publish(Notice(name, written, at))
        found = {change.name: current.get(change.name, Record()) for change in changes}
        return Written(at, frozenset(accepted), found)

    async def changes(self) -> AsyncIterator[Notice | None]:
        """See `Store`."""
        queue: asyncio.Queue[Notice | None] = asyncio.Queue()
        self._server.listeners.append(queue)
        try:
            yield None
            while True:
                notice = await queue.get()
                if not self.is_cut_off:
                    yield notice
        finally:
            self._server.listeners.remove(queue)

    async def close(self, member: str) -> None:
        """Nothing to close."""


class Breaker:
    """A breaker with those rules of the real one that concern the fleet."""

    def __init__(self, dependency: "Dependency") -> None:
        self.member: Member | None = None
        self.gate: LeaseGate | None = None
        self.state = "closed"
        self.mode: str | None = None
        self.until = 0.0
        self.admitted_while_forced_open = 0
        self._failures = self._successes = self._reopenings = self._period = 0
        self._probes = 0
        self._dependency = dependency

    # What the member calls.

    def rules(self, name: str) -> Rules:
        """See `Breakers`."""
        return RULES

    def attach(self, name: str, gate: LeaseGate) -> None:
        """See `Breakers`."""
        self.gate = gate

    def detach(self, name: str) -> None:
        """See `Breakers`."""
        self.gate = None

    def open(self, name: str, instruction: FollowOpen) -> None:
        """See `Breakers`."""
        self._reopenings = instruction.reopenings
        self._begin("open", now() + instruction.seconds)

    def close(self, name: str, instruction: FollowClose) -> None:
        """See `Breakers`."""
        if self.state != "closed":
            self._begin("closed")

    def apply_order(self, name: str, instruction: FollowOrder) -> None:
        """See `Breakers`."""
        self.mode = instruction.mode
        seconds = math.inf if instruction.seconds is None else instruction.seconds
        if instruction.mode == "forced_open":
            self._begin("open", now() + seconds)
        else:
            self._begin("closed")

    # What the process calls.

    async def call(self) -> None:
        """Make one call to the dependency."""
        if self.state == "open" and now() >= self.until:
            if self.gate is None or self.gate.can_probe():
                self._begin("half_open")
            else:
                self.gate.request_probe()
        if self.state == "open":
            return
        if self.state == "half_open":
            await self._probe()
            return
        period = self._period
        failed = await self._dependency.is_failing()
        if period != self._period or self.mode == "disabled":
            return
        self._failures = self._failures + 1 if failed else 0
        if self._failures >= FAILURE_THRESHOLD:
            self._open("failures in a row")

    async def _probe(self) -> None:
        if self._probes >= RULES.half_open_max_calls:
            return
        if self.gate is not None and not self.gate.take_probe():
            self.gate.request_probe()
            return
        self._probes += 1
        period = self._period
        failed = await self._dependency.is_failing(is_probe=True)
        if period != self._period:
            return
        self._probes -= 1
        if failed:
            self._reopenings += 1
            self._open("a probe failed")
            return
        if self.gate is not None:
            self.gate.probe_ended(succeeded=True)
        self._successes += 1
        if self._successes >= RULES.success_threshold:
            self._begin("closed")
            assert self.member is not None
            self.member.closed(NAME)

    def _open(self, reason: str) -> None:
        wait = RULES.recovery_timeout * min(2**self._reopenings, 4)
        reopenings = self._reopenings
        self._begin("open", now() + wait)
        assert self.member is not None
        self.member.opened(NAME, wait, reason, reopenings)

    def _begin(self, state: str, until: float = 0.0) -> None:
        self.state, self.until = state, until
        self._period += 1
        self._failures = self._successes = self._probes = 0
        if state == "closed":
            self._reopenings = 0


class Dependency:
    """The dependency that the breakers guard."""

    def __init__(self) -> None:
        self.is_down = False
        self.probing = asyncio.Event()
        self.running_probes = self.most_probes = self.probes = self.calls = 0

    async def is_failing(self, *, is_probe: bool = False) -> bool:
        """Handle a call, which takes a fifth of a second; return whether it fails."""
        self.calls += 1
        self.probes += is_probe
        self.running_probes += is_probe
        if is_probe:
            self.probing.set()
        self.most_probes = max(self.most_probes, self.running_probes)
        await asyncio.sleep(0.2)
        self.running_probes -= is_probe
        return self.is_down


class Process:
    """One process of the service, with traffic."""

    def __init__(self, world: "World", number: int) -> None:
        self.store = SimulatedStore(world.server)
        self.breaker = Breaker(world.dependency)
        self.member = Member(
            self.store, self.breaker, name=f"p{number}", quorum=world.quorum, clock=now
        )
        self.breaker.member = self.member
        self.is_idle = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to serve."""
        self._task = asyncio.create_task(self._serve())

    async def kill(self) -> None:
        """End without leaving the fleet."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        async with self.member.running(), asyncio.TaskGroup() as calls:
            while True:
                await asyncio.sleep(0.1)
                if not self.is_idle:
                    calls.create_task(self.breaker.call())


class World:
    """All processes, with their store and their dependency."""

    def __init__(self, processes: int, *, seed: int = 0, quorum: int = 1) -> None:
        self.quorum = quorum
        self.server = Server(random.Random(seed))  # noqa: S311
        self.dependency = Dependency()
        self.processes = [Process(self, number) for number in range(processes)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the processes serve until the end of the block."""
        for process in self.processes:
            process.start()
        await asyncio.sleep(0.5)
        yield
        for process in self.processes:
            await process.kill()

    def states(self) -> list[str]:
        """The states of all breakers."""
        return [process.breaker.state for process in self.processes]
