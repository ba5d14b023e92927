"""What all workers of the service tell of their breakers, and orders that reach all of them.

Each worker has breakers of its own. Whichever of them is asked asks the others, so that whoever
watches or administers the service need not know how many there are.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, TypeAdapter

from example_service.api import problem_types
from example_service.api.breaker_reports import (
    BreakerMetrics,
    Transition,
    breaker_metrics,
    recent_transitions,
)
from example_service.api.problems import ProblemError
from example_service.infra.peers import Peers
from example_service.infra.resilience import (
    CircuitState,
    NamedMode,
    circuit_breaker_registry,
)
from example_service.infra.resilience.registry import REMEMBERED_TRANSITIONS, add_up_metrics

_REPORT: Final = "breakers"
_ORDER: Final = "order"
_MODES: Final = "modes"


class Order(BaseModel):
    """Something to do with every breaker of a name.

    Attributes:
        breaker: The name.
        mode: What is to hold; None for a reset.
    """

    breaker: str
    mode: NamedMode | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order.

    Attributes:
        state: The circuit's state after it, the worst of all workers; None where the only ones
            that have the breaker did not tell.
        workers: Process ids of the workers that carried it out.
        silent_workers: Those that did not answer.
    """

    state: CircuitState | None
    workers: list[int]
    silent_workers: list[int]


class WorkerReport(BaseModel):
    """What one worker tells of its breakers."""

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition]


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """What all workers tell of their breakers.

    Attributes:
        breakers: What those of each name show together.
        transitions: The last changes of state, the newest first.
        workers: Process ids of the workers that it is of.
        silent_workers: Those that did not answer.
    """

    breakers: dict[str, BreakerMetrics]
    transitions: list[Transition]
    workers: list[int]
    silent_workers: list[int]


_modes_of_names = TypeAdapter(dict[str, NamedMode])


class AllWorkers:
    """All workers of the service, of which this process is one.

    Args:
        peers: The others.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._has_taken_over = asyncio.Event()
        peers.answer(_REPORT, self._answer_report)
        peers.answer(_ORDER, self._answer_order)
        peers.answer(_MODES, self._answer_modes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be one of them until the end of the block; modes that hold in the others hold here, too.

        Orders that come meanwhile are carried out after that, as they are newer.
        """
        async with self._peers.listening():
            modes: dict[str, NamedMode] = {}
            for answer in (await self._peers.ask(_MODES)).values():
                modes |= _modes_of_names.validate_json(answer or b"{}")
            for name, mode in modes.items():
                circuit_breaker_registry.set_mode(name, *mode)
            self._has_taken_over.set()
            yield

    async def report(self) -> ServiceReport:
        """Have every worker tell of its breakers."""
        answers = await self._peers.ask(_REPORT)
        others = [WorkerReport.model_validate_json(one) for one in answers.values() if one]
        reports = [_report(), *others]
        transitions = [one for report in reports for one in report.transitions]
        return ServiceReport(
            breakers=_added_up([report.breakers for report in reports]),
            transitions=sorted(transitions, key=lambda one: one.at, reverse=True)[
                :REMEMBERED_TRANSITIONS
            ],
            workers=self._that_answered(answers),
            silent_workers=_silent(answers),
        )

    async def carry_out(self, order: Order) -> Outcome:
        """Have every worker carry out an order.

        Raises:
            ProblemError: None of them has a breaker of that name.
        """
        name = order.breaker
        if name not in circuit_breaker_registry and name not in (await self.report()).breakers:
            raise ProblemError(problem_types.UNKNOWN_CIRCUIT_BREAKER)
        # First here: a worker that starts meanwhile finds the mode in this one or is asked below.
        await _carry_out(order)
        answers = await self._peers.ask(_ORDER, order.model_dump_json().encode())
        shown = (await self.report()).breakers.get(name)
        return Outcome(
            state=None if shown is None else shown.state,
            workers=self._that_answered(answers),
            silent_workers=_silent(answers),
        )

    def _that_answered(self, answers: dict[int, bytes | None]) -> list[int]:
        return sorted([self._peers.pid, *(pid for pid, answer in answers.items() if answer)])

    async def _answer_report(self, _: bytes) -> bytes:
        return _report().model_dump_json(exclude_unset=True).encode()

    async def _answer_order(self, content: bytes) -> bytes:
        await self._has_taken_over.wait()
        order = Order.model_validate_json(content)
        await _carry_out(order)
        return b"done"

    async def _answer_modes(self, _: bytes) -> bytes:
        return _modes_of_names.dump_json(circuit_breaker_registry.modes())


def _report() -> WorkerReport:
    # Breakers first: looking at them may be what changes a state.
    breakers = breaker_metrics()
    return WorkerReport(breakers=breakers, transitions=recent_transitions())


async def _carry_out(order: Order) -> None:
    if order.mode is None:
        await circuit_breaker_registry.reset(order.breaker)
    else:
        circuit_breaker_registry.set_mode(order.breaker, *order.mode)


def _silent(answers: dict[int, bytes | None]) -> list[int]:
    return sorted(pid for pid, answer in answers.items() if answer is None)


def _added_up(reports: list[dict[str, BreakerMetrics]]) -> dict[str, BreakerMetrics]:
    by_name: dict[str, list[BreakerMetrics]] = {}
    for report in reports:
        for name, metrics in report.items():
            by_name.setdefault(name, []).append(metrics)
    return {name: _together(metrics) for name, metrics in by_name.items()}


def _together(metrics: list[BreakerMetrics]) -> BreakerMetrics:
    if len(metrics) == 1:
        return metrics[0]
    shown = [one.model_dump(exclude_unset=True) for one in metrics]
    return BreakerMetrics.model_validate(add_up_metrics(shown))
