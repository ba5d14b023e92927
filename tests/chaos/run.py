"""One run: start everything, let the storm pass, and compare the ledgers."""

import asyncio
import math
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.chaos.clients import Clients
from tests.chaos.clocks import faketime_library, wrong_clocks
from tests.chaos.databases import Database, PostgresDatabase, running_database
from tests.chaos.ledgers import Ledgers
from tests.chaos.logs import longest_served_seconds, unexpected_lines
from tests.chaos.sandbox import Sandbox, running_sandbox
from tests.chaos.service import ROOT, Service
from tests.chaos.storm import (
    CLAIM_SECONDS,
    GIVE_UP_SECONDS,
    LATE_SECONDS,
    PROVIDER_TIMEOUT_SECONDS,
    Disruption,
    StormEvent,
    plan,
)
from tests.chaos.verdict import Fault, FaultKind, judge

REQUEST_TIMEOUT_SECONDS: Final = 5.0
_SHARE_OF_START: Final = 0.1
"""What a busy machine may add to a request that is served, of the time it needs for a start."""

_FAULTS: Final = Path(__file__).parent / "faults"
_CALM_SECONDS: Final = 90.0
"""How long the number of pending payments may stay the same."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a run.

    Attributes:
        database: `postgresql` or `sqlite`.
        workers: The number of workers in each replica.
        seed: Decides the storm, the faults of the provider, and the orders.
        kills: The number of SIGKILLs.
        crashes: The number of database crashes; SQLite has none.
        clients: The number of concurrent clients.
        start_seconds: The time limit for processes to start.
        replicas: The number of services that share the database.
        fault: A fault of `tests.chaos.faults` to reintroduce, which the run should find.
    """

    database: str
    workers: int
    seed: int
    kills: int
    crashes: int
    clients: int = 8
    start_seconds: float = 10.0
    replicas: int = 1
    fault: str | None = None

    @property
    def limit_seconds(self) -> float:
        """The longest duration of a request as clients see it.

        It includes a wait on the socket while all processes are starting again after a kill.
        """
        return REQUEST_TIMEOUT_SECONDS + self.start_seconds

    @property
    def served_limit_seconds(self) -> float:
        """The longest duration of a request in the log."""
        return REQUEST_TIMEOUT_SECONDS + _SHARE_OF_START * self.start_seconds


@dataclass(slots=True)
class Tally:
    """What happened during a run.

    Attributes:
        disruptions: The number of disruptions of each kind.
        pending_at_kills: The number of pending payments at each SIGKILL, where known.
        in_flight_at_kills: The number of unanswered requests at each SIGKILL.
        ended_by_itself: How often the service had ended without having been stopped.
        longest_served_seconds: The longest duration of a request in the logs, without its wait.
        calm_seconds: The time after the storm until no payment was pending.
        seconds: The duration of the storm.
        has_wrong_clocks: Whether the clocks of the replicas were wrong.
    """

    disruptions: dict[Disruption, int] = field(default_factory=lambda: dict.fromkeys(Disruption, 0))
    pending_at_kills: list[int] = field(default_factory=list)
    in_flight_at_kills: list[int] = field(default_factory=list)
    ended_by_itself: int = 0
    longest_served_seconds: float = 0.0
    calm_seconds: float = 0.0
    seconds: float = 0.0
    has_wrong_clocks: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run.

    Attributes:
        plan: The parameters of the run.
        tally: What happened during the run.
        ledgers: What the parties recorded.
        faults: What is wrong; empty if every payment was charged exactly once or has failed.
    """

    plan: Plan
    tally: Tally
    ledgers: Ledgers
    faults: list[Fault]


async def run(plan: Plan, folder: Path, report_progress: Callable[[str], object]) -> Result:
    """Run a plan to its end.

    Args:
        plan: The parameters of the run.
        folder: An empty folder for logs and data.
        report_progress: Called with messages about the progress.
    """
    with (
        running_database(plan.database, folder) as database,
        running_sandbox(plan.seed, folder) as sandbox,
        TemporaryDirectory(prefix="chaos-") as temporary,
    ):
        # An SQLite database uses the clock of the machine, so there is only one.
        library = faketime_library() if plan.replicas > 1 else None
        settings = _settings(database, sandbox)
        if plan.fault is not None:
            settings |= {"CHAOS_FAULT": plan.fault, "PYTHONPATH": f"{ROOT}:{_FAULTS}"}
        services = [
            Service(
                folder,
                temporary,
                settings,
                plan.workers,
                name=str(number),
                clocks=wrong_clocks(library, f"{plan.seed}/clock/{number}"),
            )
            for number in range(1, plan.replicas + 1)
        ]
        services[0].migrate()
        try:
            attempt = _Run(plan, database, sandbox, services, report_progress)
            attempt.tally.has_wrong_clocks = library is not None
            return await attempt.result(folder)
        finally:
            for service in services:
                service.end()


def _settings(database: Database, sandbox: Sandbox) -> dict[str, str]:
    """Timeouts so short that all of them expire many times in a run."""
    return {
        "ENVIRONMENT": "development",
        "DATABASE_URL": database.url,
        "DATABASE__POOL_SIZE": "5",
        "DATABASE__POOL_TIMEOUT_SECONDS": "1",
        "DATABASE__CONNECT_TIMEOUT_SECONDS": "1",
        "DATABASE__STATEMENT_TIMEOUT_SECONDS": "2",
        "LIMITS__REQUEST_TIMEOUT_SECONDS": str(REQUEST_TIMEOUT_SECONDS),
        "PAYMENT_PROVIDER__BASE_URL": sandbox.provider_url,
        "PAYMENT_PROVIDER__TIMEOUT_SECONDS": str(PROVIDER_TIMEOUT_SECONDS),
        "PAYMENTS__CLAIM_SECONDS": str(CLAIM_SECONDS),
        "PAYMENTS__GIVE_UP_SECONDS": str(GIVE_UP_SECONDS),
        "PAYMENTS__MAX_RETRY_SECONDS": "2",
        "PAYMENTS__POLL_SECONDS": "0.1",
        "PAYMENTS__RETRY_SECONDS": "0.2",
        "CIRCUIT_BREAKERS__DATABASE__RECOVERY_TIMEOUT": "0.5",
        "CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT": "0.5",
        "SANDBOX__CONTROL_URL": sandbox.control_url,
    }


class _Run:
    def __init__(
        self,
        plan: Plan,
        database: Database,
        sandbox: Sandbox,
        services: list[Service],
        report_progress: Callable[[str], object],
    ) -> None:
        self._plan = plan
        self._database = database
        self._sandbox = sandbox
        self._services = services
        self._print = report_progress
        self._chance = random.Random(f"{plan.seed}/victims")
        self._ledgers = Ledgers()
        urls = [service.url for service in services]
        self._clients = Clients(urls, plan.seed, plan.limit_seconds, self._ledgers)
        self.tally = Tally()
        self._faults: list[Fault] = []
        self._crash: asyncio.Task[None] | None = None

    async def result(self, folder: Path) -> Result:
        await asyncio.gather(*(service.start() for service in self._services))
        managers = [asyncio.create_task(service.look_after()) for service in self._services]
        try:
            async with aclosing(self._clients):
                await self._pass_over()
                await self._calm_down()
                await self._read_ledgers()
        finally:
            for manager in managers:
                manager.cancel()
        for service in self._services:
            self._note_end(await service.stop())
        self._note_longest(longest_served_seconds(folder))
        faults = [
            *judge(self._ledgers, self._plan.limit_seconds),
            *self._faults,
            *(Fault(FaultKind.LOG, line) for line in unexpected_lines(folder)),
        ]
        return Result(self._plan, self.tally, self._ledgers, faults)

    async def _pass_over(self) -> None:
        """Run the storm while clients order, and then let them settle their orders."""
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clients.run(self._plan.clients, stopped))
            await self._storm()
            stopped.set()

    async def _read_ledgers(self) -> None:
        self._ledgers.payments = await self._clients.payments()
        self._ledgers.charges = await self._sandbox.charges()
        # As if an hour later, when every late charge has arrived.
        self._ledgers.delivered = await self._sandbox.deliver_late_charges()
        await self._clients.repeat_all()
        self._ledgers.closing_charges = await self._sandbox.charges()

    async def _storm(self) -> None:
        began = time.monotonic()
        of_plan = self._plan
        events = plan(of_plan.seed, of_plan.kills, of_plan.crashes, of_plan.workers)
        for number, event in enumerate(events, 1):
            await asyncio.sleep(event.pause_seconds)
            await self._run_event(event)
            self._print(f"{number}/{len(events)} {event.disruption.name}: {self._progress()}")
        if self._crash is not None:
            await self._crash
        # These charges arrive after the ledgers have been read.
        await self._sandbox.turn({"mode": "late", "latency_seconds": 3600})
        await asyncio.sleep(LATE_SECONDS)
        await self._sandbox.turn({"mode": "healthy"})
        self.tally.ended_by_itself = sum(service.ended_by_itself for service in self._services)
        self.tally.seconds = time.monotonic() - began

    async def _run_event(self, event: StormEvent) -> None:
        self.tally.disruptions[event.disruption] += 1
        service = self._chance.choice(self._services)
        if event.disruption in (Disruption.KILL_WORKER, Disruption.KILL_SERVICE):
            await service.wait_until_it_serves()
            await self._count_what_is_in_flight()
        match event.disruption:
            case Disruption.KILL_WORKER:
                await service.kill_worker(self._chance)
            case Disruption.KILL_SERVICE:
                await service.kill()
            case Disruption.RESTART:
                self._note_end(await service.restart())
            case Disruption.SUSPEND_SERVICE:
                await service.suspend(event.down_seconds)
            case Disruption.CRASH_DATABASE:
                await self._crash_database(event.down_seconds)
            case Disruption.TURN_PROVIDER:
                await self._sandbox.turn(event.mode)
                await asyncio.sleep(event.lasts_seconds)

    def _note_end(self, status: int) -> None:
        if status != 0:
            self._faults.append(
                Fault(FaultKind.PROCESS, f"the service stopped with status {status}")
            )

    def _note_longest(self, seconds: float) -> None:
        self.tally.longest_served_seconds = seconds
        if seconds > self._plan.served_limit_seconds:
            self._faults.append(
                Fault(FaultKind.HUNG, f"the logs have a request of {seconds:.2f} s")
            )

    async def _crash_database(self, down_seconds: float) -> None:
        """Crash the database in the background."""
        if self._crash is not None:
            await self._crash
        assert isinstance(self._database, PostgresDatabase)
        self._crash = asyncio.create_task(self._database.crash(down_seconds))

    async def _count_what_is_in_flight(self) -> None:
        pending = await self._database.pending()
        if pending is not None:
            self.tally.pending_at_kills.append(pending)
        self.tally.in_flight_at_kills.append(self._clients.in_flight)

    async def _calm_down(self) -> None:
        """Wait while pending payments become fewer; the verdict lists those left."""
        began = progressed_at = time.monotonic()
        fewest: float = math.inf
        while (pending := await self._database.pending()) != 0:
            now = time.monotonic()
            self.tally.calm_seconds = now - began
            if pending is not None and pending < fewest:
                fewest, progressed_at = pending, now
            if now - progressed_at > _CALM_SECONDS:
                return
            self._print(f"calm: {pending} payments pending")
            await asyncio.sleep(0.2)

    def _progress(self) -> str:
        return f"{len(self._ledgers.orders)} orders, {len(self._ledgers.answers)} answers"
