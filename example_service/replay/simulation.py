"""Simulate what circuits with several sets of parameters would have done with recorded calls.

The simulated clock moves from one start or end of a recorded call to the next. A call that a
circuit refuses does not run, so that circuit does not see its outcome.

A call is failing if it failed or took at least the `slow_call_duration` of a set. It is healthy if
it succeeded in less time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from example_service.infra.resilience.metrics import STATE_VALUES
from example_service.infra.resilience.rules.phases import Closed, Open
from example_service.infra.resilience.rules.records import Overdue, Transition
from example_service.infra.resilience.rules.states import CircuitState
from example_service.replay.calls import FAILURE, SUCCESS, Call
from example_service.replay.parameters import ParameterSet
from example_service.replay.timeline import Timeline

if TYPE_CHECKING:
    from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine

MAX_OPENINGS: Final = 1_000
"""The most openings of each circuit that are kept in detail. Further ones are only counted."""


@dataclass(slots=True)
class Opening:
    """One opening of a circuit, until it closed again.

    Attributes:
        opened_at: When it opened, in seconds.
        why: The rule that opened it.
        closed_at: When it closed, in seconds; None if the recording ended first.
        spared: How many failing calls were refused.
        healthy_refused: How many healthy calls were refused.
        recovery_seconds: The time from the end of the last failing call until it closed, in
            seconds; None if it did not close.
    """

    opened_at: float
    why: str
    closed_at: float | None = None
    spared: int = 0
    healthy_refused: int = 0
    recovery_seconds: float | None = None


@dataclass(slots=True)
class Outcome:
    """The result of one set of parameters.

    Attributes:
        parameters: The set.
        failing: How many calls of the recording are failing.
        healthy: How many calls of the recording are healthy.
        opened: How often the circuit opened from CLOSED.
        refused: How many calls were refused.
        spared: How many failing calls were refused.
        healthy_refused: How many healthy calls were refused.
        seconds_spared: The total duration of the spared calls in the recording, in seconds.
        openings: The first `MAX_OPENINGS` openings.
    """

    parameters: ParameterSet
    failing: int = 0
    healthy: int = 0
    opened: int = 0
    refused: int = 0
    spared: int = 0
    healthy_refused: int = 0
    seconds_spared: float = 0.0
    openings: list[Opening] = field(default_factory=list)


@dataclass(slots=True)
class Replay:
    """The totals of a recording, and the result of each set.

    Attributes:
        outcomes: The results, in the order of the sets.
        timeline: The calls, failures and states over time.
        calls: How many calls were recorded.
        failed: How many of them failed.
        succeeded: How many of them succeeded.
        first: When the first call started, in seconds.
        last: When the last call ended, in seconds.
    """

    outcomes: list[Outcome]
    timeline: Timeline
    calls: int = 0
    failed: int = 0
    succeeded: int = 0
    first: float = 0.0
    last: float = 0.0


class _Circuit:
    """A circuit that is simulated for the whole recording."""

    __slots__ = (
        "_band",
        "_last_failing",
        "_machine",
        "_opening",
        "_since",
        "_slow_seconds",
        "_timeline",
        "_until",
        "outcome",
    )

    def __init__(
        self, parameters: ParameterSet, timeline: Timeline, band: int, slow_seconds: float
    ) -> None:
        self.outcome = Outcome(parameters)
        self._machine: CircuitStateMachine = parameters.circuit()
        self._timeline = timeline
        self._band = band
        self._slow_seconds = slow_seconds
        self._opening: Opening | None = None
        # When the last failing call ended.
        self._last_failing: float | None = None
        # When the current state began, and when an open period ends.
        self._since = self._until = 0.0

    def begin(self, call: Call) -> Any:
        """Start a call. Returns its permit, or None if the circuit refuses it."""
        machine = self._machine
        # As in `Guard`: the lock-free steps, with which a success is only counted.
        permit: Any = next(machine.permits, None)
        if permit is None:
            permit = machine.try_acquire(call.time)
            if reports := machine.take_reports():
                self._follow(reports, call.time)
        outcome = self.outcome
        if call.outcome == FAILURE or call.duration >= self._slow_seconds:
            outcome.failing += 1
            if permit is None:
                self._count_spared(call)
        elif call.outcome == SUCCESS:
            outcome.healthy += 1
            if permit is None:
                outcome.healthy_refused += 1
                if self._opening is not None:
                    self._opening.healthy_refused += 1
        outcome.refused += permit is None
        return permit

    def end(self, permit: Any, call: Call, now: float) -> None:
        """Record the outcome of a call. A call without a permit did not run."""
        if call.outcome == FAILURE or call.duration >= self._slow_seconds:
            self._last_failing = now
        if permit is None:
            return
        machine = self._machine
        if call.outcome == SUCCESS:
            if isinstance(permit, Closed) and permit.lock_free and now < machine.due:
                next(machine.successes)
                return
            machine.record_success(permit, now)
        elif call.outcome == FAILURE:
            machine.record_failure(permit, now)
        else:
            machine.release(permit, now)
        if reports := machine.take_reports():
            self._follow(reports, now)

    def finish(self, now: float) -> None:
        """Advance the circuit to the end of the recording."""
        self._machine.advance(now)
        self._follow(self._machine.take_reports() or (), now)
        self._mark(now, self._machine.phase.state)

    def _count_spared(self, call: Call) -> None:
        self.outcome.spared += 1
        self.outcome.seconds_spared += call.duration
        if self._opening is not None:
            self._opening.spared += 1

    def _follow(self, reports: Iterable[Transition | Overdue], now: float) -> None:
        """Record the state changes up to now, each at the time when it happened."""
        deadline = now
        for report in reports:
            if isinstance(report, Overdue):
                deadline = report.deadline
            else:
                self._change(report, self._changed_at(report, now, deadline))

    def _changed_at(self, change: Transition, now: float, deadline: float) -> float:
        """When the state changed. A timeout may have changed it before `now`."""
        if change.to_state is CircuitState.HALF_OPEN:
            return self._until
        if change.to_state is CircuitState.OPEN and change.wait_seconds is not None:
            phase = self._machine.phase
            # If the circuit is half-open again already, the overdue call opened it.
            return phase.until - change.wait_seconds if isinstance(phase, Open) else deadline
        return now

    def _change(self, change: Transition, at: float) -> None:
        self._mark(at, change.from_state)
        self._since = at
        if change.to_state is CircuitState.OPEN:
            self._until = at + (change.wait_seconds or 0.0)
            if change.from_state is CircuitState.CLOSED:
                self._open(at, change.cause)
        elif change.to_state is CircuitState.CLOSED and self._opening is not None:
            self._opening.closed_at = at
            if self._last_failing is not None:
                self._opening.recovery_seconds = max(0.0, at - self._last_failing)
            self._opening = None

    def _open(self, at: float, why: str) -> None:
        self.outcome.opened += 1
        self._opening = Opening(at, why)
        if len(self.outcome.openings) < MAX_OPENINGS:
            self.outcome.openings.append(self._opening)

    def _mark(self, until: float, state: CircuitState) -> None:
        if severity := STATE_VALUES[state]:
            self._timeline.mark(self._band, self._since, until, severity)


def replay(
    calls: Iterable[Call], sets: Sequence[ParameterSet], slow_seconds: float | None = None
) -> Replay:
    """Replay calls through one circuit for each set.

    Args:
        calls: The calls, in the order of their start.
        sets: The sets of parameters, at least one.
        slow_seconds: The duration from which a call counts as failing for all sets, in seconds. By
            default, the `slow_call_duration` of each set.
    """
    timeline = Timeline(len(sets))
    circuits = [
        _Circuit(
            parameters,
            timeline,
            band,
            parameters.slow_seconds if slow_seconds is None else slow_seconds,
        )
        for band, parameters in enumerate(sets)
    ]
    result = Replay([circuit.outcome for circuit in circuits], timeline)
    # A heap of the running calls by their end. The number keeps calls with the same end in order.
    running: list[tuple[float, int, Call, list[Any]]] = []

    def end_until(now: float) -> None:
        while running and running[0][0] <= now:
            at, _, call, permits = heappop(running)
            for circuit, permit in zip(circuits, permits, strict=True):
                circuit.end(permit, call, at)

    for number, call in enumerate(calls):
        if not number:
            result.first = result.last = call.time
        end_until(call.time)
        permits = [circuit.begin(call) for circuit in circuits]
        end = call.time + call.duration
        heappush(running, (end, number, call, permits))
        result.calls += 1
        result.failed += call.outcome == FAILURE
        result.succeeded += call.outcome == SUCCESS
        result.last = max(result.last, end)
        timeline.count(call.time, failed=call.outcome == FAILURE)
    end_until(result.last)
    for circuit in circuits:
        circuit.finish(result.last)
    return result
