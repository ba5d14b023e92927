"""The rules of the circuit, without the breaker around them: every word and number they say."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from example_service.infra.resilience import Backoff, CircuitState, FailureRate, Mode
from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine
from example_service.infra.resilience.rules.lockfree import EMPTY
from example_service.infra.resilience.rules.phases import (
    ALL_SHORT_CUTS,
    NO_SHORT_CUTS,
    Permit,
    ShortCuts,
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
    """The rules of a closed circuit that opens for 60 seconds after three failures in a row."""
    given = {
        "failure_threshold": 3,
        "recovery_timeout": 60.0,
        "success_threshold": 2,
        "half_open_max_calls": 3,
        "probe_timeout": 30.0,
        "backoff": Backoff(),
        "failure_rate": None,
        "slow_call_duration": None,
        "is_timed": False,
        "short_cuts": ALL_SHORT_CUTS,
        **parameters,
    }
    return CircuitStateMachine(**given)


def admitted(machine: CircuitStateMachine, now: float = NOW) -> Permit:
    """The permit of a call that the circuit must let through."""
    permit = machine.try_acquire(now)
    assert permit is not None
    return permit


def fail(machine: CircuitStateMachine, times: int = 1, now: float = NOW) -> None:
    """Make calls that fail at once."""
    for _ in range(times):
        machine.record_failure(admitted(machine, now), now)


def succeed(machine: CircuitStateMachine, times: int = 1, now: float = NOW) -> None:
    """Make calls that succeed at once."""
    for _ in range(times):
        machine.record_success(admitted(machine, now), now)


def brought_into(state: CircuitState, **parameters: Any) -> CircuitStateMachine:
    """Rules that have just begun a stay in `state`; what has happened before is forgotten."""
    machine = make_machine(**parameters)
    if state is not CLOSED:
        machine.force(state, NOW, "set by hand")
    machine.take_happenings()
    return machine


def changes(machine: CircuitStateMachine) -> list[tuple[CircuitState, CircuitState, str]]:
    """The changes of state since the last look, and what led to each."""
    happenings = machine.take_happenings() or []
    return [
        (one.from_state, one.to_state, one.cause)
        for one in happenings
        if isinstance(one, Transition)
    ]


@pytest.mark.parametrize("short_cuts", [ALL_SHORT_CUTS, NO_SHORT_CUTS])
def test_a_whole_outage_is_told_word_for_word(short_cuts: ShortCuts) -> None:
    """Every change with its wait, its failures in a row, its cause and the calls refused so far."""
    machine = make_machine(short_cuts=short_cuts)
    fail(machine, 3)
    assert machine.try_acquire(NOW) is None
    assert machine.try_acquire(NOW + 59.0) is None
    fail(machine, now=NOW + 60.0)
    assert machine.try_acquire(NOW + 179.0) is None
    succeed(machine, 2, now=NOW + 180.0)
    fail(machine, 3, now=NOW + 181.0)
    assert machine.take_happenings() == [
        Transition(CLOSED, OPEN, 60.0, 3, "3 failures in a row", 0),
        Transition(OPEN, HALF_OPEN, None, 3, "the open wait is over", 2),
        Transition(HALF_OPEN, OPEN, 120.0, 4, "a probe failed", 2),
        Transition(OPEN, HALF_OPEN, None, 4, "the open wait is over", 3),
        Transition(HALF_OPEN, CLOSED, None, 0, "2 probes succeeded", 3),
        Transition(CLOSED, OPEN, 60.0, 3, "3 failures in a row", 0),
    ]
    assert machine.take_happenings() is None
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


def test_a_probe_that_hangs_is_told_with_its_time() -> None:
    """First that it is overdue, then that the circuit is open since its deadline."""
    machine = brought_into(HALF_OPEN, probe_timeout=30.0)
    admitted(machine, NOW + 5.0)
    machine.advance(NOW + 40.0)
    assert machine.take_happenings() == [
        Overdue(deadline=NOW + 35.0, seconds=30.0),
        Transition(
            HALF_OPEN, OPEN, 120.0, 1, "a probe did not end within 30 seconds (probe_timeout)", 0
        ),
    ]
    assert machine.retry_after(NOW + 40.0) == 115.0


def test_a_share_of_failures_is_told_in_numbers() -> None:
    """How many of how many calls failed."""
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
def test_what_is_done_by_hand_is_told_as_such(how: str, before: CircuitState) -> None:
    """In the words of whoever did it, and only where the state is another one than before."""
    to_state, act, cause = BY_HAND[how]
    machine = brought_into(before)
    act(machine)
    assert changes(machine) == ([] if before is to_state else [(before, to_state, cause)])


def test_shadow_after_another_mode_closes_and_says_so() -> None:
    """What was forced open is not what the rules would have decided."""
    machine = make_machine()
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, None)
    machine.set_mode(Mode.SHADOW, "to watch", NOW, None)
    assert changes(machine) == [
        (CLOSED, OPEN, "forced open by hand: why"),
        (OPEN, CLOSED, "shadowed by hand: to watch"),
    ]


def test_a_circuit_forced_open_says_until_when() -> None:
    """Seconds where it was given an end, none where it was not."""
    machine = make_machine()
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, NOW + 10.0)
    assert machine.retry_after(NOW + 4.0) == 6.0
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, None)
    assert machine.retry_after(NOW + 4.0) is None
    happenings = machine.take_happenings() or []
    assert [one.wait_seconds for one in happenings if isinstance(one, Transition)] == [10.0]
    machine.set_mode(Mode.FORCED_OPEN, "why", NOW, inf)
    assert machine.retry_after(NOW) is None


class TenSeconds(Backoff):
    """A wait whose every wait is the same.

    Args:
        tell: Hears what the rule is asked, at the moment in which it is asked.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        object.__setattr__(self, "_tell", tell)

    _tell: Callable[..., None]

    def wait_seconds(self, recovery_timeout: float, reopenings: int, opening: int) -> float:
        """Ten seconds."""
        self._tell(recovery_timeout, reopenings, opening)
        return 10.0


def test_the_wait_rule_hears_which_opening_it_is() -> None:
    """With the failed recoveries since the circuit was last closed, which are fewer."""
    heard: list[tuple[float, ...]] = []
    machine = make_machine(backoff=TenSeconds(lambda *asked: heard.append(asked)))
    fail(machine, 3)
    fail(machine, now=NOW + 10.0)
    fail(machine, now=NOW + 20.0)
    succeed(machine, 2, now=NOW + 30.0)
    fail(machine, 3, now=NOW + 30.0)
    assert heard == [(60.0, 0, 1), (60.0, 1, 2), (60.0, 2, 3), (60.0, 0, 4)]


def test_calls_let_through_by_shadow_are_counted() -> None:
    """Each as running, until it ends, and as one that would have been refused."""
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
    "neither": lambda machine, permit: machine.release(permit, NOW + 2.0),
}


@pytest.mark.parametrize("overdue", [False, True])
@pytest.mark.parametrize("short_cuts", [ALL_SHORT_CUTS, NO_SHORT_CUTS])
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
@pytest.mark.parametrize("how", ENDS)
def test_each_end_leaves_one_running_call_less(
    how: str, state: CircuitState, short_cuts: ShortCuts, overdue: bool
) -> None:
    """Also where the call has been counted at its deadline, and is then not counted again."""
    if overdue:
        short_cuts = NO_SHORT_CUTS
    machine = brought_into(
        state,
        short_cuts=short_cuts,
        is_timed=overdue,
        slow_call_duration=1.0 if overdue else None,
    )
    permits = [admitted(machine) for _ in range(3)]
    for left in (2, 1, 0):
        counted = ENDS[how](machine, permits[left])
        assert machine.in_flight() == left
        assert counted is (None if how == "neither" else not overdue)
    totals = machine.totals()
    assert totals.failures == (3 if overdue or how == "failure" else 0)
    assert totals.successes == (3 if how == "success" and not overdue else 0)


def test_a_permit_without_a_clock_is_one_for_all() -> None:
    """Where admissions need no lock the stay itself is the permit, and no call costs an object."""
    machine = make_machine()
    assert admitted(machine) is admitted(machine) is next(machine.permits)
    assert machine.in_flight() == 3
    timed = make_machine(is_timed=True)
    assert admitted(timed) is not admitted(timed)
    assert next(timed.permits, None) is None


def test_a_circuit_that_has_recovered_takes_the_same_short_cuts_as_a_new_one() -> None:
    """Admissions and successes without the lock, which are counted all the same."""
    machine = brought_into(HALF_OPEN, success_threshold=1)
    succeed(machine)
    permits = [next(machine.permits) for _ in range(3)]
    assert permits == [machine.phase] * 3
    assert permits[0].quiet
    assert machine.in_flight() == 3
    heard = brought_into(HALF_OPEN, success_threshold=1, short_cuts=NO_SHORT_CUTS)
    succeed(heard)
    assert not admitted(heard).quiet


def test_a_success_makes_room_for_failures_that_need_no_lock() -> None:
    """All but the one that opens; each is counted, in the totals and in the row, as it is taken."""
    machine = make_machine(failure_threshold=4)
    fail(machine)
    permit = admitted(machine)
    quiet_before = permit.quiet
    machine.record_success(permit, NOW)
    assert (quiet_before, permit.quiet) == (False, True)
    for taken in (1, 2, 3):
        assert next(permit.allowance, None)
        assert machine.failures_in_a_row() == taken
        assert machine.totals().failures == 1 + taken
    assert next(permit.allowance, None) is None
    machine.record_failure(permit, NOW)
    assert changes(machine) == [(CLOSED, OPEN, "4 failures in a row")]
    assert machine.totals().failures == 5


def test_a_failure_leaves_room_for_as_many_as_do_not_open() -> None:
    """Taken or not, they and the failures under the lock make one row."""
    machine = make_machine(failure_threshold=4)
    permit = admitted(machine)
    machine.record_failure(permit, NOW)
    assert list(permit.allowance) == [True, True]
    machine.record_failure(permit, NOW)
    assert changes(machine) == [(CLOSED, OPEN, "4 failures in a row")]


def test_while_a_circuit_opens_no_failure_passes_without_the_lock() -> None:
    """Room that another thread used then would be missing from the row that is being judged."""
    machine = make_machine(failure_threshold=2)
    permit = admitted(machine)
    passed: list[bool | None] = []
    machine.backoff = TenSeconds(lambda *_: passed.extend(permit.allowance))
    fail(machine, 2)
    assert machine.phase.state is OPEN
    assert passed == []


def test_a_new_circuit_has_nothing_to_tell() -> None:
    """No change, no call; and it keeps nothing for refusals that may never come."""
    machine = make_machine()
    assert machine.take_happenings() is None
    assert machine.state_changes is None
    assert machine.totals() == NO_TOTALS
    assert machine.in_flight() == 0
    assert machine.refusals is EMPTY
    assert machine.due == inf
    machine.force(OPEN, NOW, "set by hand")
    assert machine.try_acquire(NOW) is None
    assert machine.rejections() == 1


def test_a_success_needs_no_lock_until_something_has_failed() -> None:
    """Unless somebody has to hear of it."""
    assert admitted(make_machine()).quiet
    assert not admitted(make_machine(short_cuts=NO_SHORT_CUTS)).quiet


class AlwaysTooMany(FailureRate):
    """A rule for which any share of failures is too large."""

    def is_reached(self, failures: int, calls: int) -> bool:  # noqa: ARG002
        """Yes."""
        return True


def test_a_disabled_circuit_judges_no_share() -> None:
    """Neither after a failure nor after a success; from its end on it does."""
    machine = make_machine(failure_rate=AlwaysTooMany())
    machine.set_mode(Mode.DISABLED, "why", NOW, NOW + 10.0)
    fail(machine, 5)
    succeed(machine)
    assert machine.phase.state is CLOSED
    fail(machine, now=NOW + 10.0)
    assert changes(machine) == [(CLOSED, OPEN, "1 of the last 1 calls failed")]


def test_a_shadowed_circuit_judges_shares() -> None:
    """It decides as ever, only without consequences for its callers."""
    machine = make_machine(failure_rate=AlwaysTooMany())
    machine.set_mode(Mode.SHADOW, "to watch", NOW, None)
    fail(machine)
    assert changes(machine) == [(CLOSED, OPEN, "1 of the last 1 calls failed")]
