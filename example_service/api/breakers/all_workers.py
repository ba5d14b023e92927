"""Reports on the breakers of all workers on this machine.

Each worker has its own breakers and writes a report on them to a directory shared by all workers,
so any worker can answer for the whole service.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from example_service.api.breakers.portions import dumped, parsed
from example_service.api.breakers.views import (
    BreakerMetrics,
    FleetStatus,
    StandingMode,
    Transition,
    add_verdicts,
    breaker_metrics,
    recent_orders,
    recent_transitions,
    standing_modes,
)
from example_service.core.background import KeepGoing
from example_service.infra.fleet.fleet import Fleet
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.record import Record
from example_service.infra.resilience import Order, circuit_breaker_registry
from example_service.infra.resilience.metrics import add_up_metrics
from example_service.infra.resilience.registry import REMEMBERED_TRANSITIONS
from example_service.infra.workers.reports import Report

logger = logging.getLogger(__name__)

REPORT_SECONDS: Final = 1.0
"""The interval between two reports of a worker. Changes of state, mode or fleet are reported
immediately."""

POLL_SECONDS: Final = 0.05
ANSWER_SECONDS: Final = 1.0
"""How long an order waits for the other workers to report that they have carried it out."""

# With many breakers a report takes long. Reports are then written less often, so that a worker
# spends at most this share of its time on them.
_SHARE_OF_TIME: Final = 0.1
_MAX_REPORT_SECONDS: Final = 2.5


class WorkerReport(BaseModel):
    """The report of one worker on its breakers.

    Attributes:
        breakers: The metrics of each breaker, by name.
        transitions: The most recent changes of state, newest first.
        modes: The modes that operators have set, by name.
        orders: The most recent orders of operators that it has carried out, newest first.
        version: The latest version of the fleet's records that this worker has applied.
    """

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition] = []
    modes: dict[str, StandingMode] = {}
    orders: list[Order] = []
    version: int = 0


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """The reports of all workers on this machine, combined.

    Attributes:
        breakers: The combined metrics of the breakers of each name.
        transitions: The most recent changes of state, newest first.
        modes: The modes that operators have set, by name. They also apply to future breakers.
        orders: The most recent orders of operators, once for each worker that carried them out.
        workers: Process ids of the workers whose reports are included.
        silent_workers: Process ids of the workers that have not reported in time.
        fleet: Whether this process shares its circuits. None if it belongs to no fleet.
    """

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition]
    modes: dict[str, StandingMode]
    orders: list[Order]
    workers: list[int]
    silent_workers: list[int]
    fleet: FleetStatus | None


class AllWorkers:
    """All workers of the service on this machine, including this process.

    Args:
        fleet: The fleet that this process belongs to.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._reports = fleet.reports
        self._keep_going = KeepGoing(logger, "The report of this worker could not be written")

    @property
    def member(self) -> Member | None:
        """This process as a member of the fleet. None if it belongs to no fleet."""
        return self._fleet.member

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator["AllWorkers"]:
        """Write reports for the other workers until the end of the block."""
        # Taken before the report is made, so that a change in between causes another report.
        signature = self._signature()
        await self._write()
        task = asyncio.create_task(self._report_regularly(signature))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with contextlib.suppress(OSError):
                self._reports.remove()

    async def report(self) -> ServiceReport:
        """Combine the reports of all workers. Those of other workers are up to a second old."""
        others = await self._others()
        return await self._combined(others)

    async def own_report(self) -> ServiceReport:
        """Report on this worker only."""
        return await self._combined({})

    async def report_since(self, version: int) -> ServiceReport:
        """Combine the reports once all workers have applied a version of the fleet's records.

        Workers that have not reported within `ANSWER_SECONDS` that they have are among the silent
        ones.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            others = await self._others()
            late = [
                pid for pid, report in others.items() if report is None or report.version < version
            ]
            if not late or time.monotonic() >= deadline:
                return await self._combined(others | dict.fromkeys(late))
            await asyncio.sleep(POLL_SECONDS)

    async def _others(self) -> dict[int, WorkerReport | None]:
        return await asyncio.to_thread(
            lambda: {pid: _parsed(text) for pid, text in self._reports.others().items()}
        )

    async def _own(self) -> WorkerReport:
        member = self.member
        if member is None:
            return await asyncio.to_thread(_report, 0, None)
        records = member.records() if member.is_connected else {}
        # In a thread, so that a report on many breakers does not delay requests.
        return await asyncio.to_thread(_report, member.version, records)

    async def _combined(self, others: dict[int, WorkerReport | None]) -> ServiceReport:
        own = await self._own()
        return await asyncio.to_thread(
            _combined, own, self._reports.pid, others, self._fleet_status()
        )

    def _fleet_status(self) -> FleetStatus | None:
        member = self.member
        if member is None:
            return None
        connected = member.is_connected
        return FleetStatus(connected=connected, processes=member.members if connected else 1)

    async def _report_regularly(self, seen: object) -> None:
        wait_seconds, written_at = REPORT_SECONDS, time.monotonic()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = self._signature()
            if now == seen and time.monotonic() < written_at + wait_seconds:
                continue
            seen, began = now, time.monotonic()
            await self._write()
            written_at = time.monotonic()
            taken = (written_at - began) / _SHARE_OF_TIME
            wait_seconds = min(max(REPORT_SECONDS, taken), _MAX_REPORT_SECONDS)

    def _signature(self) -> object:
        """A value that changes whenever a new report should be written immediately."""
        member = self.member
        modes = circuit_breaker_registry.modes().items()
        return (
            circuit_breaker_registry.recent_transitions()[:1],
            circuit_breaker_registry.recent_orders()[:1],
            {(name, mode.mode, mode.reason) for name, mode in modes},
            None if member is None else (member.version, member.is_connected),
        )

    async def _write(self) -> None:
        """Write the report of this worker; log a failure once until a write succeeds again."""
        with self._keep_going:
            own = await self._own()
            await asyncio.to_thread(lambda: self._reports.write(dumped(own, "breakers")))


def _report(version: int, records: dict[str, Record] | None) -> WorkerReport:
    """Make the report of this worker. `records` are those of the fleet, None without a fleet."""
    # The metrics come first, because reading them can change a state.
    breakers = breaker_metrics()
    if records is not None:
        add_verdicts(breakers, records)
    return WorkerReport(
        breakers=breakers,
        transitions=recent_transitions(),
        modes=standing_modes(),
        orders=recent_orders(),
        version=version,
    )


def _parsed(report: Report) -> WorkerReport | None:
    if report.is_silent:
        return None
    try:
        return parsed(report.text, WorkerReport, "breakers", BreakerMetrics)
    except ValueError:
        logger.exception("The report of another worker could not be read.")
        return None


def _combined(
    own: WorkerReport,
    pid: int,
    others: dict[int, WorkerReport | None],
    fleet: FleetStatus | None,
) -> ServiceReport:
    read = {other: report for other, report in others.items() if report is not None}
    reports = [own, *read.values()]
    transitions = [transition for report in reports for transition in report.transitions]
    transitions.sort(key=lambda transition: transition.at, reverse=True)
    return ServiceReport(
        breakers=_added_up(reports),
        transitions=transitions[:REMEMBERED_TRANSITIONS],
        modes={name: mode for report in reports for name, mode in report.modes.items()},
        orders=[order for report in reports for order in report.orders],
        workers=sorted([pid, *read]),
        silent_workers=sorted(other for other, report in others.items() if report is None),
        fleet=fleet,
    )


def _added_up(reports: Iterable[WorkerReport]) -> dict[str, BreakerMetrics]:
    by_name: dict[str, list[BreakerMetrics]] = {}
    for report in reports:
        for name, metrics in report.breakers.items():
            by_name.setdefault(name, []).append(metrics)
    return {name: _sum(metrics) for name, metrics in by_name.items()}


def _sum(metrics: list[BreakerMetrics]) -> BreakerMetrics:
    if len(metrics) == 1:
        return metrics[0]
    shown = [metric.model_dump(exclude_unset=True) for metric in metrics]
    return BreakerMetrics.model_validate(add_up_metrics(shown))
