"""The breakers of all workers as one: their metrics, and the modes that operators set.

Each worker has breakers of its own. Any worker can answer for the whole service: it first queries
the others. So monitoring and operators need not know how many workers there are.
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
from example_service.infra.resilience.metrics import add_up_metrics
from example_service.infra.resilience.registry import REMEMBERED_TRANSITIONS
from example_service.infra.workers.peers import Peers
from example_service.infra.workers.standing_modes import StandingModes

logger = logging.getLogger(__name__)

_REPORT: Final = "breakers"
_ORDER: Final = "order"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a reset or of setting a mode.

    Attributes:
        state: The state of the circuit afterwards, the worst of all workers; None if no worker has
            such a breaker now.
        workers: Process ids of the workers that have done it.
        silent_workers: Process ids of those that did not answer.
    """

    state: CircuitState | None
    workers: list[int]
    silent_workers: list[int]


class WorkerReport(BaseModel):
    """The breakers of one worker."""

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition] = []
    modes: dict[str, StandingMode] = {}


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """The breakers of all workers.

    Attributes:
        breakers: The metrics of each name, added up.
        transitions: The last changes of state, the newest first.
        modes: The modes that operators have set, by name; they also apply to future breakers.
        workers: Process ids of the workers that are included.
        silent_workers: Process ids of those that did not answer.
    """

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition]
    modes: dict[str, StandingMode]
    workers: list[int]
    silent_workers: list[int]


class AllWorkers:
    """All workers of the service, of which this process is one.

    Args:
        peers: The other workers.
        modes: The modes that operators have set.
    """

    def __init__(self, peers: Peers, modes: StandingModes) -> None:
        self._peers = peers
        self._modes = modes
        peers.answer(_REPORT, self._answer_report)
        peers.answer(_ORDER, self._answer_order)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Join the other workers until the end of the block, and apply the modes already set."""
        async with self._peers.listening():
            # After the socket exists: a mode that is set later than this read arrives over it.
            for name, mode in self._modes.read().items():
                _set(name, mode)
            yield

    async def report(self) -> ServiceReport:
        """Collect the breakers of all workers."""
        reports = await self._ask(_REPORT)
        # In a thread, so that many breakers delay no request.
        answered = [await asyncio.to_thread(_report), *filter(None, reports.values())]
        transitions = [one for report in answered for one in report.transitions]
        transitions.sort(key=lambda one: one.at, reverse=True)
        return ServiceReport(
            breakers=await asyncio.to_thread(_added_up, answered),
            transitions=transitions[:REMEMBERED_TRANSITIONS],
            modes={name: mode for report in answered for name, mode in report.modes.items()},
            workers=self._that_answered(reports),
            silent_workers=_silent(reports),
        )

    async def carry_out(self, name: str, mode: NamedMode | None) -> Outcome:
        """Set a mode on every breaker with this name, in all workers, or reset them.

        If two are set at once, the one that is written last applies in all workers.

        Args:
            name: Name of the breakers.
            mode: The mode to set; None for a reset.

        Raises:
            ProblemError: If no worker has a breaker with this name, or a mode for it.
        """
        if name not in circuit_breaker_registry:
            report = await self.report()
            if name not in report.breakers and name not in report.modes:
                if report.silent_workers:
                    return Outcome(None, [], report.silent_workers)
                raise ProblemError(catalogue.UNKNOWN_CIRCUIT_BREAKER)
        # In a thread, because it may wait for another worker that writes.
        await asyncio.to_thread(self._modes.write, name, mode)
        await self._apply(name)
        reports = await self._ask(_ORDER, name)
        shown = _added_up([_report(name), *filter(None, reports.values())])
        return Outcome(
            state=shown[name].state if name in shown else None,
            workers=self._that_answered(reports),
            silent_workers=_silent(reports),
        )

    async def _apply(self, name: str) -> None:
        """Apply the mode that was set last for a name."""
        mode = self._modes.read().get(name)
        if mode is None:
            await circuit_breaker_registry.reset(name)
        else:
            _set(name, mode)

    async def _ask(self, question: str, content: str = "") -> dict[int, WorkerReport | None]:
        """The reports of the other workers by process id; None where there is none."""
        answers = await self._peers.ask(question, content.encode())
        return {pid: _understood(answer) for pid, answer in answers.items()}

    def _that_answered(self, reports: dict[int, WorkerReport | None]) -> list[int]:
        return sorted([self._peers.pid, *(pid for pid, report in reports.items() if report)])

    async def _answer_report(self, _: bytes) -> bytes:
        return await asyncio.to_thread(_report_json)

    async def _answer_order(self, content: bytes) -> bytes:
        name = content.decode()
        await self._apply(name)
        return _report(name).model_dump_json(exclude_unset=True).encode()


def _set(name: str, mode: NamedMode) -> None:
    """Apply a mode here, unless it has ended meanwhile."""
    if mode.seconds is None or mode.seconds > 0:
        circuit_breaker_registry.set_mode(name, *mode)


def _report(name: str | None = None) -> WorkerReport:
    """The report of this worker: about all breakers, or about those of one name."""
    # The breakers come first, because reading them may change a state.
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
