"""The table of states and events in the docs, compared with the real state machine."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

import pytest

from example_service.infra.resilience import CircuitState
from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine
from example_service.infra.resilience.rules.phases import HalfOpen, Open, Permit, Phase
from example_service.infra.resilience.rules.states import Mode
from tests.unit.infra.resilience.breakers import make_breaker

PAGE = Path(__file__).parents[4] / "docs" / "circuit-breaker.md"
BEGIN, END = "<!-- state table -->\n", "<!-- end -->"

CLOSED, HALF_OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN

NOW = 1000.0
RECOVERY_TIMEOUT = 60.0


@dataclass
class Situation:
    """A circuit in one of its states, with running calls.

    Attributes:
        machine: Its rules, one failure or success below each threshold.
        current: The permit of a call admitted by the current state, or None.
        late: The permit of a call admitted by an earlier state.
    """

    machine: CircuitStateMachine
    current: Permit | None
    late: Permit


def _situation(state: CircuitState, *, nearly: bool) -> Situation:
    machine = make_breaker(
        failure_threshold=3,
        success_threshold=3,
        half_open_max_calls=2,
        recovery_timeout=RECOVERY_TIMEOUT,
        slow_call_duration=5.0,
    ).machine
    late = _admitted(machine, NOW - 2)
    if state is CLOSED:
        machine.reset(NOW - 1)
        for _ in range(2 if nearly else 1):
            machine.record_failure(_admitted(machine, NOW - 1), NOW - 1)
        return Situation(machine, _admitted(machine, NOW), late)
    machine.force(CircuitState.OPEN, NOW, "by a test")
    if state is CircuitState.OPEN:
        return Situation(machine, None, late)
    machine.force(HALF_OPEN, NOW, "by a test")
    for _ in range(2 if nearly else 1):
        machine.record_success(_admitted(machine, NOW), NOW)
    return Situation(machine, _admitted(machine, NOW), late)


def _admitted(machine: CircuitStateMachine, now: float) -> Permit:
    permit = machine.try_acquire(now)
    assert permit is not None
    return permit


def _begin(one: Situation) -> str:
    return "runs" if one.machine.try_acquire(NOW) else "refused"


def _begin_when_full(one: Situation) -> str | None:
    if one.machine.phase.state is not HALF_OPEN:
        return None
    _admitted(one.machine, NOW)
    return _begin(one)


def _end(how: str, *, late: bool) -> Callable[[Situation], str | None]:
    def end(one: Situation) -> str | None:
        permit = one.late if late else one.current
        if permit is None:
            return None
        getattr(one.machine, how)(permit, NOW + 1)
        return ""

    return end


def _overdue(one: Situation) -> str | None:
    if one.current is None:
        return None
    one.machine.release(one.late, NOW + 1)
    one.machine.advance(NOW + 5)
    return ""


def _wait_over(one: Situation) -> str | None:
    if one.machine.phase.state is not CircuitState.OPEN:
        return None
    one.machine.release(one.late, NOW + 1)
    one.machine.advance(NOW + RECOVERY_TIMEOUT)
    return ""


def _by_hand(act: Callable[[CircuitStateMachine], object]) -> Callable[[Situation], str]:
    def by_hand(one: Situation) -> str:
        act(one.machine)
        # Try one call more than HALF_OPEN has probe slots.
        runs = all(one.machine.try_acquire(NOW) for _ in range(3))
        return "every call runs" if runs else "calls are refused"

    return by_hand


@dataclass(frozen=True)
class Event:
    """A row of the table.

    Attributes:
        name: The text in its first column.
        act: Triggers the event; returns what the table adds to the visible changes, or None if it
            cannot happen in that state.
        nearly: The only state that it concerns, one step before a threshold; None for every state.
    """

    name: str
    act: Callable[[Situation], str | None]
    nearly: CircuitState | None = None


def _mode(mode: Mode) -> Callable[[Situation], str | None]:
    return _by_hand(lambda machine: machine.set_mode(mode, "why", NOW, None))


EVENTS = [
    Event("a call begins", _begin),
    Event("a call begins while all probe slots are taken", _begin_when_full),
    Event("a call succeeds", _end("record_success", late=False)),
    Event(
        "a call succeeds, the last one needed to close",
        _end("record_success", late=False),
        HALF_OPEN,
    ),
    Event("a call fails", _end("record_failure", late=False)),
    Event(
        "a call fails and reaches `failure_threshold`", _end("record_failure", late=False), CLOSED
    ),
    Event("a call ends as neutral", _end("release", late=False)),
    Event("a call becomes overdue", _overdue),
    Event("a late call succeeds", _end("record_success", late=True)),
    Event("a late call fails", _end("record_failure", late=True)),
    Event("a late call ends as neutral", _end("release", late=True)),
    Event("the wait is over", _wait_over),
    Event("`reset()`", _by_hand(lambda machine: machine.reset(NOW))),
    Event("`force_open()`", _mode(Mode.FORCED_OPEN)),
    Event("`disable()`", _mode(Mode.DISABLED)),
    Event("`shadow()`", _mode(Mode.SHADOW)),
]


@dataclass(frozen=True)
class Seen:
    """The visible values of a circuit."""

    state: CircuitState
    failures: int
    successes: int
    in_a_row: int
    towards_closing: int

    @classmethod
    def of(cls, machine: CircuitStateMachine) -> "Seen":
        """The current values, without applying the time that has passed."""
        phase, totals = machine.phase, machine.totals()
        return cls(
            state=phase.state,
            failures=totals.failures,
            successes=totals.successes,
            in_a_row=machine.failures_in_a_row(),
            towards_closing=phase.successes if isinstance(phase, HalfOpen) else 0,
        )


def _cell(event: Event, state: CircuitState) -> str:
    if event.nearly not in {None, state}:
        return "-"
    situation = _situation(state, nearly=event.nearly is not None)
    machine = situation.machine
    before = Seen.of(machine)
    words = event.act(situation)
    if words is None:
        return "-"
    after = Seen.of(machine)
    return "; ".join(filter(None, [words, *_changes(machine, before, after)])) or "nothing"


def _changes(machine: CircuitStateMachine, before: Seen, after: Seen) -> list[str]:
    changes = []
    if after.failures > before.failures:
        changes.append("counted as a failure")
    if after.successes > before.successes:
        changes.append("counted as a success")
    if after.state is CLOSED is before.state and after.in_a_row != before.in_a_row:
        changes.append(
            "one more failure in a row" if after.in_a_row else "failures in a row are reset"
        )
    if after.state is before.state and after.towards_closing > before.towards_closing:
        changes.append("counts towards closing")
    if after.state is not before.state:
        changes.append(f"**{after.state.name}**{_how_long(machine.phase)}")
    return changes


def _how_long(phase: Phase) -> str:
    if not isinstance(phase, Open) or phase.wait_seconds == inf:
        return ""
    return " for the first wait" if phase.wait_seconds == RECOVERY_TIMEOUT else " for a longer wait"


def _table() -> str:
    rows = [["event", *(state.name for state in CircuitState)], ["---"] * 4]
    rows += [[event.name, *(_cell(event, state) for state in CircuitState)] for event in EVENTS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_table_in_the_docs_is_what_the_machine_does() -> None:
    """Every event in every state has exactly the documented effect."""
    page = PAGE.read_text(encoding="utf-8")
    _, table_and_rest = page.split(BEGIN)
    assert table_and_rest.split(END)[0] == _table()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_only_the_documented_transitions_happen(event: Event) -> None:
    """Every transition is in the diagram, or set by an operator."""
    drawn = {
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
        ("half_open", "open"),
    }
    for state in CircuitState:
        situation = _situation(state, nearly=event.nearly is not None)
        before = situation.machine.phase.state
        event.act(situation)
        after = situation.machine.phase.state
        assert event.name.startswith("`") or before is after or (before, after) in drawn
