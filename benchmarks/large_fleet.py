"""An outage that opens every circuit of a large fleet, in virtual time.

Members, participants, gates and commands are the service's own. Each process has its own member,
and its own breaker for every circuit; only the breakers, the store and the traffic are simulated.
Every process calls every dependency `CALLS_PER_SECOND` times a second, at random moments. Calls
that can change nothing are left out: those of a circuit that is closed everywhere while its
dependency works, and those of one that is open everywhere.
"""

import asyncio
import random
import resource
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import redis

from benchmarks.rounds import uncollected
from benchmarks.tables import Table, Target, Verdict, exactly
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.record import Record
from example_service.infra.fleet.redis_store import RedisStore
from example_service.infra.fleet.store import Change
from tests.unit.infra.fleet.simulated_breakers import RULES, Breakers
from tests.unit.infra.fleet.simulated_store import Server, SimulatedStore, now
from tests.valkey import running_valkey
from tests.virtual_loop import run_virtually

PROCESSES = 1_000
CIRCUITS = 10_000
CALLS_PER_SECOND = 2.0
CALL_SECONDS = 0.2
OUTAGE_SECONDS = 4.0
IDLE_SECONDS = 5.0
LIMIT_SECONDS = 120.0

_TICK_SECONDS = 0.01
_MAX_CHANGES = 100


class Circuit:
    """What all processes together do with one circuit.

    Attributes:
        not_closed: In how many processes it is open or half-open.
        until: When the first of the current open periods ends.
        waiting: How many processes are in an open period that ends then or later.
        probes: How many probes are running.
        most_probes: How many have been running at the same time.
    """

    __slots__ = ("most_probes", "name", "not_closed", "probes", "until", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.until = 0.0
        self.not_closed = self.waiting = self.probes = self.most_probes = 0


class CountedBreakers(Breakers):
    """The breakers of one process, which keep the counts of each circuit up to date."""

    def __init__(self, circuits: Mapping[str, Circuit]) -> None:
        super().__init__(asyncio.get_running_loop().time)
        self._circuits = circuits

    def begin(self, name: str, state: str, until: float = 0.0) -> None:
        """Begin a period of a circuit."""
        breaker, circuit = self[name], self._circuits[name]
        circuit.not_closed += (breaker.state == "closed") - (state == "closed")
        if breaker.state == "open" and breaker.until >= circuit.until:
            circuit.waiting -= 1
        super().begin(name, state, until)
        if state == "open":
            if until > circuit.until + 1.0:
                circuit.until, circuit.waiting = until, 0
            circuit.until = min(circuit.until, until)
            circuit.waiting += 1


class Process:
    """One process of the service."""

    def __init__(self, number: int, server: Server, circuits: Mapping[str, Circuit]) -> None:
        self.breakers = CountedBreakers(circuits)
        store, clock = SimulatedStore(server), asyncio.get_running_loop().time
        self.member = Member(store, self.breakers, name=f"process-{number}", clock=clock)
        self.breakers.member = self.member

    async def serve(self) -> None:
        """Take part in the fleet until cancelled."""
        async with self.member.running():
            await asyncio.Event().wait()


class Call(NamedTuple):
    """A call that is running."""

    ends: float
    process: Process
    circuit: Circuit
    period: int
    is_probe: bool


class Fleet:
    """All processes, with their traffic.

    Attributes:
        is_down: Whether all dependencies are down.
        calls: How many calls were made, if they could change anything.
        admitted: How many of them reached a dependency.
    """

    def __init__(self, processes: int, circuits: int) -> None:
        names = [f"dependency-{number}" for number in range(circuits)]
        self.circuits = {name: Circuit(name) for name in names}
        self.server = Server(random.Random(0))
        self.processes = [
            Process(number, self.server, self.circuits) for number in range(processes)
        ]
        self.is_down = False
        self.calls = self.admitted = 0
        self._running: deque[Call] = deque()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Let all processes serve until the end of the block."""
        tasks = [asyncio.create_task(process.serve()) for process in self.processes]
        tasks.append(asyncio.create_task(self._make_calls()))
        await self.until(lambda: all(process.member.is_connected for process in self.processes))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> float:
        """Wait until a condition is met, and return how many seconds that took."""
        began = now()
        async with asyncio.timeout(LIMIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(_TICK_SECONDS)
        return now() - began

    def is_open_everywhere(self) -> bool:
        """Whether no circuit is closed in any process."""
        return all(circuit.not_closed == len(self.processes) for circuit in self.circuits.values())

    def is_closed_everywhere(self) -> bool:
        """Whether all circuits are closed in all processes."""
        return not any(circuit.not_closed for circuit in self.circuits.values())

    async def _make_calls(self) -> None:
        per_tick = CALLS_PER_SECOND * _TICK_SECONDS * len(self.processes)
        draw = self.server.draw.random
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._end_calls()
            at = now()
            for circuit in self.circuits.values():
                if self._can_change(circuit, at):
                    for _ in range(int(per_tick + draw())):
                        self._call(circuit, at)

    def _can_change(self, circuit: Circuit, at: float) -> bool:
        if circuit.not_closed == 0:
            return self.is_down
        return circuit.waiting < len(self.processes) or at >= circuit.until

    def _call(self, circuit: Circuit, at: float) -> None:
        process = self.processes[int(self.server.draw.random() * len(self.processes))]
        breaker = process.breakers[circuit.name]
        self.calls += 1
        if not breaker.admits(at):
            return
        self.admitted += 1
        is_probe = breaker.state == "half_open"
        circuit.probes += is_probe
        circuit.most_probes = max(circuit.most_probes, circuit.probes)
        self._running.append(Call(at + CALL_SECONDS, process, circuit, breaker.period, is_probe))

    def _end_calls(self) -> None:
        at = now()
        while self._running and self._running[0].ends <= at:
            call = self._running.popleft()
            call.circuit.probes -= call.is_probe
            call.process.breakers.ended(call.circuit.name, call.period, failed=self.is_down)


class Figures(NamedTuple):
    """What was measured. Times are in virtual seconds.

    Attributes:
        idle: Messages a second while all circuits are closed.
        opening: From the first failure until all circuits are open in all processes.
        records: The records in the store at that moment.
        probes_while_open: Calls that reached a dependency from then to the end of the outage.
        recovery: From the end of the outage until all circuits are closed in all processes.
        busiest: The most messages in a second.
        messages: All messages from the first failure until all circuits are closed.
        most_leases: The most unexpired leases of one circuit at the same time.
        most_probes: The most running probes of one circuit at the same time.
    """

    idle: float
    opening: float
    records: dict[str, Record]
    probes_while_open: int
    recovery: float
    busiest: int
    messages: int
    most_leases: int
    most_probes: int


async def simulate(processes: int, circuits: int) -> Figures:
    """Let all dependencies fail for `OUTAGE_SECONDS`, and wait until all circuits are closed."""
    fleet = Fleet(processes, circuits)
    messages = fleet.server.messages
    async with fleet.serving():
        before = messages.total()
        await asyncio.sleep(IDLE_SECONDS)
        idle = (messages.total() - before) / IDLE_SECONDS
        before, began = messages.total(), now()
        fleet.is_down = True
        opening = await fleet.until(fleet.is_open_everywhere)
        records, admitted = fleet.server.records(), fleet.admitted
        await asyncio.sleep(began + OUTAGE_SECONDS - now())
        probes_while_open = fleet.admitted - admitted
        fleet.is_down = False
        recovery = await fleet.until(fleet.is_closed_everywhere)
    return Figures(
        idle,
        opening,
        records,
        probes_while_open,
        recovery,
        max(messages.values()),
        messages.total() - before,
        fleet.server.most_leases,
        max(circuit.most_probes for circuit in fleet.circuits.values()),
    )


async def run(*, quick: bool) -> AsyncIterator[Table]:
    """Simulate the outage, measure the memory of its records in a real Valkey, and yield a table.

    Args:
        quick: Only check that everything runs.
    """
    processes, circuits = (10, 20) if quick else (PROCESSES, CIRCUITS)
    began = time.process_time()
    with uncollected():
        # Its own event loop, in which time is virtual.
        figures = await asyncio.to_thread(run_virtually, simulate(processes, circuits))
    seconds = time.process_time() - began
    memory = await _bytes_in_valkey(figures.records)
    yield _table(processes, circuits, figures, memory, seconds)


def _table(processes: int, circuits: int, figures: Figures, memory: int, seconds: float) -> Table:
    table = Table(
        f"An outage of {processes:,} processes with {circuits:,} circuits each, simulated", ["", ""]
    )
    per_process = figures.busiest / processes
    for what, figure in (
        ("until all circuits are open in all processes", f"{figures.opening:.2f} s"),
        ("calls that reach a dependency while they are open", f"{figures.probes_while_open:,}"),
        ("recovery, from the end of the outage until all are closed", f"{figures.recovery:.1f} s"),
        (
            "most probes of a circuit at the same time, whole fleet",
            f"{figures.most_probes} of {RULES.half_open_max_calls}",
        ),
        ("memory of the records in Valkey", f"{memory / 1024**2:.1f} MB"),
        ("messages a second, all circuits closed, per process", f"{figures.idle / processes:.1f}"),
        ("messages a second, all circuits closed, in total", f"{figures.idle:,.0f}"),
        ("messages in the busiest second, per process", f"{per_process:,.0f}"),
        ("messages in the busiest second, in total", f"{figures.busiest:,}"),
        (
            "messages for each circuit and process, from the first failure to the end",
            f"{figures.messages / processes / circuits:.1f}",
        ),
    ):
        table.rows.append([what, figure])
    for what, reached, limit in (
        ("leases of a circuit at the same time", figures.most_leases, RULES.success_threshold),
        ("probes of a circuit at the same time", figures.most_probes, RULES.half_open_max_calls),
    ):
        table.verdicts.append(Verdict(what, exactly(reached), Target(limit)))
    table.figures["simulation"] = {
        "seconds until open": exactly(figures.opening),
        "seconds until closed": exactly(figures.recovery),
        "bytes in the store": exactly(memory),
        "messages in the busiest second": exactly(figures.busiest),
    }
    table.note = (
        f"The outage lasts {OUTAGE_SECONDS:g} s, the first wait {RULES.recovery_timeout:g} s. "
        f"{RULES.success_threshold} probes must succeed. Each process calls each dependency "
        f"{CALLS_PER_SECOND:g} times a second, and each call takes {CALL_SECONDS:g} s. A message "
        "is a request to the store, its reply, or a notification of one process. "
        f"The simulation took {seconds / 60:.1f} minutes of processor time and "
        f"{_peak_gigabytes():.1f} GB of memory."
    )
    return table


async def _bytes_in_valkey(records: Mapping[str, Record]) -> int:
    """How much more memory a Valkey uses after these records were written."""
    with running_valkey() as valkey, redis.Redis.from_url(valkey.url) as client:
        store = RedisStore(valkey.url, prefix="large", timeout_seconds=10.0)
        await store.beat("member", 0)
        before = _used_memory(client)
        changes = [Change(name, 0, record, 3_600_000) for name, record in records.items()]
        for first in range(0, len(changes), _MAX_CHANGES):
            await store.write(changes[first : first + _MAX_CHANGES], 0)
        used = _used_memory(client) - before
        await store.close("member")
    return used


def _used_memory(client: redis.Redis) -> int:
    info: dict[str, Any] = client.info("memory")
    return int(info["used_memory"])


def _peak_gigabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 ** (3 if sys.platform == "darwin" else 2)
