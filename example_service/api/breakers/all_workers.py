"""What all workers of the service tell of their breakers, and orders that reach all of them.

Each worker has breakers of its own. Whichever of them is asked asks the others, so that whoever
watches or administers the service need not know how many there are.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ValidationError

from example_service.api.breakers.views import (
    BreakerMetrics,
    StandingMode,
    Transition,
    breaker_metrics,
    recent_transitions,
    standing_modes,
)
from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.infra.resilience import (
    CircuitState,
    NamedMode,
    circuit_breaker_registry,
)
from example_service.infra.resilience.registry import REMEMBERED_TRANSITIONS, add_up_metrics
from example_service.infra.workers.peers import Peers
from example_service.infra.workers.standing_modes import StandingModes

logger = logging.getLogger(__name__)

_REPORT: Final = "breakers"
_ORDER: Final = "order"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order.

    Attributes:
        state: The circuit's state after it, the worst of all workers; None where none of them has
            such a breaker now.
        workers: Process ids of the workers that carried it out.
        silent_workers: Those that did not answer.
    """

    state: CircuitState | None
    workers: list[int]
    silent_workers: list[int]


class WorkerReport(BaseModel):
    """What one worker tells of its breakers."""

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition] = []
    modes: dict[str, StandingMode] = {}


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """What all workers tell of their breakers.

    Attributes:
        breakers: What those of each name show together.
        transitions: The last changes of state, the newest first.
        modes: What holds for every breaker of a name, those to come included.
        workers: Process ids of the workers that it is of.
        silent_workers: Those that did not answer.
    """

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition]
    modes: dict[str, StandingMode]
    workers: list[int]
    silent_workers: list[int]


class AllWorkers:
    """All workers of the service, of which this process is one.

    Args:
        peers: The others.
        modes: What holds for names, in all of them.
    """

    def __init__(self, peers: Peers, modes: StandingModes) -> None:
        self._peers = peers
        self._modes = modes
        peers.answer(_REPORT, self._answer_report)
        peers.answer(_ORDER, self._answer_order)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be one of them until the end of the block; modes that hold in all hold here, too."""
        async with self._peers.listening():
            # Only now: who orders something after this look finds the socket, and asks.
            for name, mode in self._modes.read().items():
                _set(name, mode)
            yield

    async def report(self) -> ServiceReport:
        """Have every worker tell of its breakers."""
        reports = await self._ask(_REPORT)
        # In a thread, so that many breakers delay no request.
        told = [await asyncio.to_thread(_report), *filter(None, reports.values())]
        transitions = [one for report in told for one in report.transitions]
        transitions.sort(key=lambda one: one.at, reverse=True)
        return ServiceReport(
            breakers=await asyncio.to_thread(_added_up, told),
            transitions=transitions[:REMEMBERED_TRANSITIONS],
            modes={name: mode for report in told for name, mode in report.modes.items()},
            workers=self._that_answered(reports),
            silent_workers=_silent(reports),
        )

    async def carry_out(self, name: str, mode: NamedMode | None) -> Outcome:
        """Have every worker set a mode on every breaker of a name, or reset them.

        Of two orders at once the one that was written last holds, in all workers.

        Args:
            name: Of the breakers.
            mode: What is to hold; None for a reset.

        Raises:
            ProblemError: None of them has a breaker of that name, or a mode for it.
        """
        if name not in circuit_breaker_registry:
            report = await self.report()
            if name not in report.breakers and name not in report.modes:
                if report.silent_workers:
                    return Outcome(None, [], report.silent_workers)
                raise ProblemError(catalogue.UNKNOWN_CIRCUIT_BREAKER)
        # Others may be writing, and this worker has requests to serve.
        await asyncio.to_thread(self._modes.write, name, mode)
        await self._obey(name)
        reports = await self._ask(_ORDER, name)
        shown = _added_up([_report(name), *filter(None, reports.values())])
        return Outcome(
            state=shown[name].state if name in shown else None,
            workers=self._that_answered(reports),
            silent_workers=_silent(reports),
        )

    async def _obey(self, name: str) -> None:
        """Do what was ordered last for a name."""
        mode = self._modes.read().get(name)
        if mode is None:
            await circuit_breaker_registry.reset(name)
        else:
            _set(name, mode)

    async def _ask(self, question: str, content: str = "") -> dict[int, WorkerReport | None]:
        """The reports of the other workers by process id; None of those that gave none."""
        answers = await self._peers.ask(question, content.encode())
        return {pid: _understood(answer) for pid, answer in answers.items()}

    def _that_answered(self, reports: dict[int, WorkerReport | None]) -> list[int]:
        return sorted([self._peers.pid, *(pid for pid, report in reports.items() if report)])

    async def _answer_report(self, _: bytes) -> bytes:
        return await asyncio.to_thread(_report_json)

    async def _answer_order(self, content: bytes) -> bytes:
        name = content.decode()
        await self._obey(name)
        return _report(name).model_dump_json(exclude_unset=True).encode()


def _set(name: str, mode: NamedMode) -> None:
    """Have a mode hold here, unless it has ended since it was ordered."""
    if mode.seconds is None or mode.seconds > 0:
        circuit_breaker_registry.set_mode(name, *mode)


def _report(name: str | None = None) -> WorkerReport:
    """What this worker tells: everything, or the breakers of one name."""
    # Breakers first: looking at them may be what changes a state.
    breakers = breaker_metrics()
    if name is not None:
        return WorkerReport(breakers={name: breakers[name]} if name in breakers else {})
    return WorkerReport(breakers=breakers, transitions=recent_transitions(), modes=standing_modes())


def _report_json() -> bytes:
    return _report().model_dump_json(exclude_unset=True).encode()


def _understood(answer: bytes | None) -> WorkerReport | None:
    if answer is None:
        return None
    try:
        return WorkerReport.model_validate_json(answer)
    except ValidationError:
        logger.exception("The answer of another worker could not be understood.")
        return None


def _silent(reports: dict[int, WorkerReport | None]) -> list[int]:
    return sorted(pid for pid, report in reports.items() if report is None)


def _added_up(reports: Iterable[WorkerReport]) -> dict[str, BreakerMetrics]:
    by_name: dict[str, list[BreakerMetrics]] = {}
    for report in reports:
        for name, metrics in report.breakers.items():
            by_name.setdefault(name, []).append(metrics)
    return {name: _together(metrics) for name, metrics in by_name.items()}


def _together(metrics: list[BreakerMetrics]) -> BreakerMetrics:
    if len(metrics) == 1:
        return metrics[0]
    shown = [one.model_dump(exclude_unset=True) for one in metrics]
    return BreakerMetrics.model_validate(add_up_metrics(shown))
