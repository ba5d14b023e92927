"""The rules of the circuit without a breaker around them, with exact messages and numbers."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from example_service.infra.resilience import Backoff, CircuitState, FailureRate, Mode
from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine
from example_service.infra.resilience.rules.lockfree import EMPTY
from example_service.infra.resilience.rules.phases import (
    ALL_LOCK_FREE_STEPS,
    NO_LOCK_FREE_STEPS,
    LockFreeSteps,
    Permit,
)
from example_service.infra.resilience.rules.records import (
    NO_TOTALS,
    Overdue,
    Totals,
    Transition,
)

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

NOW = 1000.0


def make_machine(**parameters: Any) -> CircuitStateMachine:
    """Rules that open a circuit for 60 seconds after three failures in a row."""
    given = {
        "failure_threshold": 3,
        "recovery_timeout": 60.0,
        "success_threshold": 2,
        "half_open_max_calls": 3,
        "probe_timeout": 30.0,
        "backoff": Backoff(),
        "failure_rate": None,
        "slow_call_duration": None,
        "lock_free_steps": ALL_LOCK_FREE_STEPS,
        **parameters,
    }
    return CircuitStateMachine(**given)


def admitted(machine: CircuitStateMachine, now: float = NOW) -> Permit:
    """The permit of a call that the circuit must admit."""
    permit = machine.try_acquire(now)
    assert permit is not None
    return permit


def fail(machine: CircuitStateMachine, times: int = 1, now: float = NOW) -> None:
    """Make calls that fail without taking time."""
    for _ in range(times):
        machine.record_failure(admitted(machine, now), now)


def succeed(machine: CircuitStateMachine, times: int = 1, now: float = NOW) -> None:
    """Make calls that succeed without taking time."""
    for _ in range(times):
        machine.record_success(admitted(machine, now), now)


def brought_into(state: CircuitState, **parameters: Any) -> CircuitStateMachine:
    """Rules at the beginning of a period in `state`, without earlier events."""
    machine = make_machine(**parameters)
    if state is not CLOSED:
        machine.force(state, NOW, "set by hand")
    machine.take_reports()
    return machine


def changes(machine: CircuitStateMachine) -> list[tuple[CircuitState, CircuitState, str]]:
    """The transitions since the last call of this function, with their causes."""
    reports = machine.take_reports() or []
    return [
        (report.from_state, report.to_state, report.cause)
        for report in reports
        if isinstance(report, Transition)
    ]


@pytest.mark.parametrize("lock_free_steps", [ALL_LOCK_FREE_STEPS, NO_LOCK_FREE_STEPS])
def test_a_whole_outage_is_logged_word_for_word(lock_free_steps: LockFreeSteps) -> None:
    """Every transition has its wait, failures in a row, cause and number of refused calls."""
    machine = make_machine(lock_free_steps=lock_free_steps)
    fail(machine, 3)
    assert machine.try_acquire(NOW) is None
    assert machine.try_acquire(NOW + 59.0) is None
    fail(machine, now=NOW + 60.0)
    assert machine.try_acquire(NOW + 179.0) is None
    succeed(machine, 2, now=NOW + 180.0)
    fail(machine, 3, now=NOW + 181.0)
    assert machine.take_reports() == [
        Transition(CLOSED, OPEN, 60.0, 3, "3 failures in a row", 0),
        Transition(OPEN, HALF_OPEN, None, 3, "the open wait is over", 2),
        Transition(HALF_OPEN, OPEN, 120.0, 4, "a probe failed", 2),
        Transition(OPEN, HALF_OPEN, None, 4, "the open wait is over", 3),
        Transition(HALF_OPEN, CLOSED, None, 0, "2 probes succeeded", 3),
        Transition(CLOSED, OPEN, 60.0, 3, "3 failures in a row", 0),
    ]
    assert machine.take_reports() is None
    assert machine.totals() == Totals(
        failures=7, successes=2, rejections=3, openings=3, shadow_rejections=0
    )
    assert machine.state_changes == {
        (CLOSED, OPEN): 2,
        (OPEN, HALF_OPEN): 2,
        (HALF_OPEN, OPEN): 1,
        (HALF_OPEN, CLOSED): 1,
    }
    assert machine.in_flight() == 0


@pytest.mark.parametrize("limit", ["probe_timeout", "slow_call_duration"])
def test_a_probe_that_hangs_is_reported_with_its_time(limit: str) -> None:
    """Events report first the overdue call, then the opening as of its deadline."""
    machine = brought_into(HALF_OPEN, **{"probe_timeout": 60.0, limit: 30.0})
    admitted(machine, NOW + 5.0)
    machine.advance(NOW + 40.0)
    assert machine.take_reports() == [
        Overdue(deadline=NOW + 35.0, seconds=30.0),
        Transition(
            HALF_OPEN, OPEN, 120.0, 1, f"a probe did not end within 30 seconds ({limit})", 0
        ),
    ]
    assert machine.retry_after(NOW + 40.0) == 115.0


def test_a_share_of_failures_is_reported_in_numbers() -> None:
    """The cause says how many of how many calls failed."""
    rule = FailureRate(threshold=0.5, window_calls=10, minimum_calls=4)
    machine = make_machine(failure_threshold=100, failure_rate=rule)
    succeed(machine, 2)
    fail(machine, 2)
    assert changes(machine) == [(CLOSED, OPEN, "2 of the last 4 calls failed")]


BY_HAND: dict[str, tuple[CircuitState, Callable[[CircuitStateMachine], object], str]] = {
    "reset": (CLOSED, lambda machine: machine.reset(NOW), "reset by hand"),
    "force_open": (
        OPEN,
        lambda machine: machine.set_mode(Mode.FORCED_OPEN, "why", NOW, None),
        "forced open by hand: why",
    ),
    "disable": (
        CLOSED,
        lambda machine: machine.set_mode(Mode.DISABLED, "why", NOW, None),
        "disabled by hand: why",
    ),
    "closed": (CLOSED, lambda machine: machine.force(CLOSED, NOW, "set by hand"), "set by hand"),
    "open": (OPEN, lambda machine: machine.force(OPEN, NOW, "set by hand"), "set by hand"),
    "half-open": (
        HALF_OPEN,
        lambda machine: machine.force(HALF_OPEN, NOW, "set by hand"),
        "set by hand",
    ),
}


@pytest.mark.parametrize("how", BY_HAND)
@pytest.mark.parametrize("before", list(CircuitState))
def test_what_is_done_by_hand_is_reported_as_such(how: str, before: CircuitState) -> None:
    """The cause has the operator's words; it is reported only if the state changes."""
    to_state, act, cause = BY_HAND[how]
    machine = brought_into(before)
    act(machine)
    assert changes(machine) == ([] if before is to_state else [(before, to_state, cause)])


def test_each_change_says_what_caused_it() -> None:
    """The rules, an operator or the fleet; what follows an operator's mode is up to the rules."""
    machine = make_machine()
    fail(machine, 3)
    machine.reset(NOW)
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, NOW + 10.0)
    machine.advance(NOW + 10.0)
    machine.follow(OPEN, "a probe failed elsewhere", 60.0, 1, NOW + 11.0)
    machine.follow(CLOSED, "the fleet closed it", 0.0, 0, NOW + 12.0)
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW + 13.0, None)
    machine.set_mode(Mode.SHADOW, "why", NOW + 14.0, None)
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW + 15.0, None)
    machine.set_mode(Mode.DISABLED, "why", NOW + 16.0, None)
    reports = machine.take_reports() or []
    assert [
        (report.to_state.value, report.caused_by)
        for report in reports
        if isinstance(report, Transition)
    ] == [
        ("open", "rules"),
        ("closed", "operator"),
        ("open", "operator"),
        ("half_open", "rules"),
        ("open", "fleet"),
        ("closed", "fleet"),
        ("open", "operator"),
        ("closed", "operator"),
        ("open", "operator"),
        ("closed", "operator"),
    ]


def test_shadow_after_another_mode_closes_and_says_so() -> None:
    """The rules alone would not have opened the circuit, so the shadow mode closes it."""
    machine = make_machine()
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, None)
    machine.set_mode(Mode.SHADOW, "to watch", NOW, None)
    assert changes(machine) == [
        (CLOSED, OPEN, "forced open by hand: why"),
        (OPEN, CLOSED, "shadowed by hand: to watch"),
    ]


def test_a_circuit_forced_open_says_until_when() -> None:
    """It gives the remaining seconds, or None if the mode has no end."""
    machine = make_machine()
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, NOW + 10.0)
    assert machine.retry_after(NOW + 4.0) == 6.0
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, None)
    assert machine.retry_after(NOW + 4.0) is None
    reports = machine.take_reports() or []
    assert [report.wait_seconds for report in reports if isinstance(report, Transition)] == [10.0]
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, inf)
    assert machine.retry_after(NOW) is None


def test_an_opening_set_by_hand_begins_and_lasts_as_asked() -> None:
    """Without a time it begins now; without a wait the backoff decides."""
    machine = make_machine()
    machine.force(OPEN, NOW, "set by hand", since=NOW - 10.0, wait_seconds=30.0)
    assert machine.retry_after(NOW) == 20.0
    machine.force(OPEN, NOW, "set by hand", wait_seconds=30.0)
    assert machine.retry_after(NOW) == 30.0
    machine.force(OPEN, NOW, "set by hand", since=NOW - 10.0)
    assert machine.retry_after(NOW) == 50.0
    assert machine.retry_after(NOW + 49.5) == 0.5
    assert machine.retry_after(NOW + 51.0) == 0.0


class TenSeconds(Backoff):
    """A backoff with a constant wait.

    Args:
        on_wait: Called with the arguments of every wait.
    """

    def __init__(self, on_wait: Callable[..., None]) -> None:
        object.__setattr__(self, "_on_wait", on_wait)

    _on_wait: Callable[..., None]

    def wait_seconds(self, recovery_timeout: float, reopenings: int, opening: int) -> float:
        """Return ten seconds."""
        self._on_wait(recovery_timeout, reopenings, opening)
        return 10.0


def test_the_backoff_receives_the_number_of_the_opening() -> None:
    """It also gets the number of failed recoveries since the circuit was last closed."""
    heard: list[tuple[float, ...]] = []
    machine = make_machine(backoff=TenSeconds(lambda *asked: heard.append(asked)))
    fail(machine, 3)
    fail(machine, now=NOW + 10.0)
    fail(machine, now=NOW + 20.0)
    succeed(machine, 2, now=NOW + 30.0)
    fail(machine, 3, now=NOW + 30.0)
    assert heard == [(60.0, 0, 1), (60.0, 1, 2), (60.0, 2, 3), (60.0, 0, 4)]


def test_calls_let_through_by_shadow_are_counted() -> None:
    """Each counts as in flight until it ends, and as one that would have been refused."""
    machine = make_machine()
    machine.set_mode(Mode.SHADOW, "to watch", NOW, None)
    fail(machine, 3)
    permits = [admitted(machine), admitted(machine)]
    assert machine.in_flight() == 2
    assert machine.totals().shadow_rejections == 2
    assert machine.mode is not None
    assert machine.mode.would_have_rejected == 2
    assert machine.rejections() == 0
    machine.record_success(permits[0], NOW)
    machine.record_failure(permits[1], NOW)
    assert machine.in_flight() == 0
    assert machine.totals() == Totals(
        failures=4, successes=1, rejections=0, openings=1, shadow_rejections=2
    )


ENDS: dict[str, Callable[[CircuitStateMachine, Permit], object]] = {
    "success": lambda machine, permit: machine.record_success(permit, NOW + 2.0),
    "failure": lambda machine, permit: machine.record_failure(permit, NOW + 2.0),
    "neutral": lambda machine, permit: machine.release(permit, NOW + 2.0),
}


@pytest.mark.parametrize("overdue", [False, True])
@pytest.mark.parametrize("lock_free_steps", [ALL_LOCK_FREE_STEPS, NO_LOCK_FREE_STEPS])
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
@pytest.mark.parametrize("how", ENDS)
def test_each_end_lowers_the_calls_in_flight_by_one(
    how: str, state: CircuitState, lock_free_steps: LockFreeSteps, overdue: bool
) -> None:
    """This includes a call that was counted at its deadline and is not counted again."""
    if overdue:
        lock_free_steps = NO_LOCK_FREE_STEPS._replace(timed=True)
    machine = brought_into(
        state,
        lock_free_steps=lock_free_steps,
        slow_call_duration=1.0 if overdue else None,
    )
    permits = [admitted(machine) for _ in range(3)]
    for left in (2, 1, 0):
        counted = ENDS[how](machine, permits[left])
        assert machine.in_flight() == left
        assert counted is (None if how == "neutral" else not overdue)
    totals = machine.totals()
    assert totals.failures == (3 if overdue or how == "failure" else 0)
    assert totals.successes == (3 if how == "success" and not overdue else 0)


def test_untimed_calls_share_one_permit() -> None:
    """If admissions need no lock, the period itself is the permit, so calls create no object."""
    machine = make_machine()
    assert admitted(machine) is admitted(machine) is next(machine.permits)
    assert machine.in_flight() == 3
    timed = make_machine(lock_free_steps=ALL_LOCK_FREE_STEPS._replace(timed=True))
    assert admitted(timed) is not admitted(timed)
    assert next(timed.permits, None) is None
    locked = make_machine(lock_free_steps=NO_LOCK_FREE_STEPS)
    assert admitted(locked) is admitted(locked)
    assert next(locked.permits, None) is None


def test_a_circuit_that_has_recovered_takes_the_same_steps_without_the_lock() -> None:
    """Admissions and successes need no lock, but are still counted."""
    machine = brought_into(HALF_OPEN, success_threshold=1)
    succeed(machine)
    permits = [next(machine.permits) for _ in range(3)]
    assert permits == [machine.phase] * 3
    assert permits[0].counts_only
    assert machine.in_flight() == 3
    heard = brought_into(HALF_OPEN, success_threshold=1, lock_free_steps=NO_LOCK_FREE_STEPS)
    succeed(heard)
    assert not admitted(heard).counts_only


def test_timed_calls_need_no_lock_before_the_first_deadline_there_can_be() -> None:
    """A call that starts now is the first that may become overdue."""
    timed = ALL_LOCK_FREE_STEPS._replace(timed=True)
    machine = make_machine(slow_call_duration=5.0, lock_free_steps=timed)
    succeed(machine, now=NOW + 1.0)
    assert machine.due == NOW + 6.0
    assert next(machine.admissions) is machine.phase


def test_a_success_makes_room_for_failures_that_need_no_lock() -> None:
    """Only the failure that opens needs it; the others count in the totals and in a row."""
    machine = make_machine(failure_threshold=4)
    fail(machine)
    permit = admitted(machine)
    counts_only_before = permit.counts_only
    machine.record_success(permit, NOW)
    assert (counts_only_before, permit.counts_only) == (False, True)
    for taken in (1, 2, 3):
        assert next(permit.lock_free_failures, None)
        assert machine.failures_in_a_row() == taken
        assert machine.totals().failures == 1 + taken
    assert next(permit.lock_free_failures, None) is None
    machine.record_failure(permit, NOW)
    assert changes(machine) == [(CLOSED, OPEN, "4 failures in a row")]
    assert machine.totals().failures == 5


def test_a_failure_leaves_room_for_as_many_as_do_not_open() -> None:
    """Failures with and without the lock count together as failures in a row."""
    machine = make_machine(failure_threshold=4)
    permit = admitted(machine)
    machine.record_failure(permit, NOW)
    assert list(permit.lock_free_failures) == [True, True]
    machine.record_failure(permit, NOW)
    assert changes(machine) == [(CLOSED, OPEN, "4 failures in a row")]


def test_while_a_circuit_opens_no_failure_passes_without_the_lock() -> None:
    """Otherwise a failure of another thread would be missing from the count of this decision."""
    machine = make_machine(failure_threshold=2)
    permit = admitted(machine)
    passed: list[bool | None] = []
    machine.backoff = TenSeconds(lambda *_: passed.extend(permit.lock_free_failures))
    fail(machine, 2)
    assert machine.phase.state is OPEN
    assert passed == []


def test_a_new_circuit_has_nothing_to_report() -> None:
    """There are no transitions, and nothing is allocated for refused or running calls."""
    machine = make_machine()
    assert machine.take_reports() is None
    assert machine.state_changes is None
    assert machine.totals() == NO_TOTALS
    assert machine.in_flight() == 0
    assert machine.refusals is EMPTY
    assert machine.running is None
    assert not machine.has_blocks
    assert machine.due == inf
    machine.force(OPEN, NOW, "set by hand")
    assert machine.try_acquire(NOW) is None
    assert machine.rejections() == 1


def test_a_success_needs_no_lock_until_something_has_failed() -> None:
    """With a listener, it does need the lock."""
    assert admitted(make_machine()).counts_only
    machine = make_machine(lock_free_steps=NO_LOCK_FREE_STEPS)
    permit = admitted(machine)
    assert (permit.counts_only, permit.lock_free) == (False, False)
    machine.record_success(permit, NOW)
    assert (permit.counts_only, permit.lock_free) == (False, False)


class AlwaysTooMany(FailureRate):
    """A rule for which any failure rate is too high."""

    def is_reached(self, failures: int, calls: int) -> bool:  # noqa: ARG002
        """Return True."""
        return True


def test_a_disabled_circuit_judges_no_share() -> None:
    """No outcome is evaluated until the mode ends."""
    machine = make_machine(failure_rate=AlwaysTooMany())
    machine.set_mode(Mode.DISABLED, "why", NOW, NOW + 10.0)
    fail(machine, 5)
    succeed(machine)
    assert machine.phase.state is CLOSED
    fail(machine, now=NOW + 10.0)
    assert changes(machine) == [(CLOSED, OPEN, "1 of the last 1 calls failed")]


def test_a_shadowed_circuit_judges_shares() -> None:
    """It applies the rules as usual, but refuses no call."""
    machine = make_machine(failure_rate=AlwaysTooMany())
    machine.set_mode(Mode.SHADOW, "to watch", NOW, None)
    fail(machine)
    assert changes(machine) == [(CLOSED, OPEN, "1 of the last 1 calls failed")]
