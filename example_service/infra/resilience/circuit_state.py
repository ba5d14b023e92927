"""The rules of the circuit: states, counters and transitions.

Everything here is synchronous, does no input or output, and is told the time: `now` is always an
argument, in seconds on a clock of which only differences matter. `CircuitBreaker` is the shell
that holds the clock, the lock and the listeners.

    CLOSED --- failure_threshold failures in a row ---> OPEN
    OPEN ----- the open wait is over -----------------> HALF_OPEN
    HALF_OPEN  success_threshold successes -----------> CLOSED
    HALF_OPEN  a failure, or an overdue probe --------> OPEN, for a longer wait

Each stay in a state is an object of its own, a *phase*, and a call carries the phase that admitted
it. An outcome whose phase is over is stale: it counts in the totals and changes nothing else
(sony/gobreaker calls this a generation).
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat
from operator import length_hint
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

# The short cuts below count with iterators that one C call advances, which is atomic only under
# the global interpreter lock. Without it every admission and outcome takes the breaker's lock.
GIL_ENABLED: bool = getattr(sys, "_is_gil_enabled", lambda: True)()

# What a counter starts from; it counts down.
ENDLESS = sys.maxsize


class CircuitState(StrEnum):
    """What a circuit does with calls: let them through, refuse them, or let a few probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class WaitRule(Protocol):
    """Says how long a circuit stays open."""

    def wait_seconds(self, recovery_timeout: float, reopenings: int, opening: int) -> float:
        """Seconds to stay open.

        Args:
            recovery_timeout: Seconds of the first wait.
            reopenings: Failed recoveries since the circuit was last closed, from 0.
            opening: Which opening of this circuit it is, from 1.
        """
        ...


_NO_FAILURES: "repeat[bool]" = repeat(True, 0)


class Closed:
    """A stay in CLOSED, and at once the permit of every call that it admits.

    Two things spare an outcome the lock. A success under a permit that is `quiet` changes nothing
    but its count. A failure for which `next(allowance, None)` gives something is thereby counted,
    and does not open the circuit; it makes the permit no longer quiet.
    """

    __slots__ = ("allowance", "quiet")
    state: ClassVar = CircuitState.CLOSED
    overdue: ClassVar = False

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.allowance = _NO_FAILURES


class Open:
    """A stay in OPEN: refuses every call until `until`.

    `next(refusals)` refuses one: it counts in one atomic step, and is done without the lock.
    """

    __slots__ = ("refusals", "until", "wait_seconds")
    state: ClassVar = CircuitState.OPEN

    def __init__(self, since: float, wait_seconds: float) -> None:
        self.wait_seconds = wait_seconds
        self.until = since + wait_seconds
        self.refusals = repeat(None, ENDLESS)


class HalfOpen:
    """A stay in HALF_OPEN: the probes that run now, oldest first, and the successes so far."""

    __slots__ = ("probes", "successes")
    state: ClassVar = CircuitState.HALF_OPEN

    def __init__(self) -> None:
        self.probes: list[Probe] = []
        self.successes = 0


class Probe:
    """The permit of one call that HALF_OPEN admits."""

    __slots__ = ("deadline", "overdue", "phase")
    quiet: bool = False
    allowance: "repeat[bool]" = _NO_FAILURES

    def __init__(self, phase: HalfOpen, deadline: float) -> None:
        self.phase = phase
        self.deadline = deadline
        self.overdue = False


Permit: TypeAlias = Closed | Probe
Phase: TypeAlias = Closed | Open | HalfOpen


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, as the rules saw it.

    Attributes:
        from_state: The state before.
        to_state: The state after.
        wait_seconds: Seconds until a probe may be admitted, where `to_state` is open.
        failure_count: Failures in a row that led to it.
        overdue_since: When a probe passed its deadline, where that is what opened it; else None.
        rejections: Calls refused since the circuit was last closed.
    """

    from_state: CircuitState
    to_state: CircuitState
    wait_seconds: float | None
    failure_count: int
    overdue_since: float | None
    rejections: int


class Totals(NamedTuple):
    """Lifetime counts of one circuit; they never go down."""

    failures: int
    successes: int
    rejections: int
    openings: int


NO_TOTALS = Totals(failures=0, successes=0, rejections=0, openings=0)
_NO_PERMITS: "repeat[Closed]" = repeat(Closed(False), 0)


class CircuitStateMachine:
    """One circuit's state. Not thread-safe: the breaker calls every method under its lock.

    What is read and advanced without the lock, by the breaker's short cuts: `permits` hands out
    the CLOSED phase as a permit and is empty in any other state, so that `next(permits, None)`
    checks the state, takes the permit and counts the admission in one atomic step. In the same way
    `next(successes)` counts a success, `next(permit.allowance, None)` a failure below the
    threshold, and `next(phase.refusals)` a refused call.
    `phase_memo` is a place for what the breaker wants to keep until the phase ends.

    Args:
        failure_threshold: Failures in a row that open a closed circuit.
        recovery_timeout: Seconds of the first open wait.
        success_threshold: Successes in HALF_OPEN that close it.
        half_open_max_calls: Probes at once in HALF_OPEN.
        probe_timeout: Seconds after which a running probe counts as failed.
        wait_rule: How the open wait grows with each failed recovery.
        quiet_successes: Whether a success that resets nothing needs only to be counted.
        quiet_failures: Whether a failure below the threshold needs only to be counted.
    """

    __slots__ = (
        "_admitted",
        "_allowed",
        "_failures",
        "_failures_in_a_row",
        "_ignored",
        "_overdue",
        "_quiet_failures",
        "_quiet_successes",
        "_rejections",
        "_rejections_when_closed",
        "_reopenings",
        "_transitions",
        "failure_threshold",
        "half_open_max_calls",
        "permits",
        "phase",
        "phase_memo",
        "probe_timeout",
        "recovery_timeout",
        "state_changes",
        "success_threshold",
        "successes",
        "wait_rule",
    )

    def __init__(  # noqa: PLR0917 - The breaker passes them by position, see there.
        self,
        failure_threshold: int,
        recovery_timeout: float,
        success_threshold: int,
        half_open_max_calls: int,
        probe_timeout: float,
        wait_rule: WaitRule,
        quiet_successes: bool,
        quiet_failures: bool,
    ) -> None:
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self.success_threshold = success_threshold
        self.half_open_max_calls = half_open_max_calls
        self.probe_timeout = probe_timeout
        self.wait_rule = wait_rule
        self._quiet_successes = quiet_successes and GIL_ENABLED
        self._quiet_failures = quiet_failures and GIL_ENABLED
        self._failures = 0
        self._failures_in_a_row = 0
        self._allowed = 0
        self.successes = repeat(None, ENDLESS)
        self.state_changes: dict[tuple[CircuitState, CircuitState], int] | None = None
        self._admitted = 0
        self._ignored = 0
        self._overdue = 0
        self._reopenings = 0
        self._rejections = 0
        self._rejections_when_closed = 0
        self._transitions: list[Transition] | None = None
        self._begin(Closed(self._quiet_successes))

    def totals(self) -> Totals:
        """Lifetime counts up to this moment."""
        changes = self.state_changes
        return Totals(
            failures=self._failures + self._allowance_taken(),
            successes=_taken(self.successes),
            rejections=self.rejections(),
            openings=sum(n for (_, to), n in changes.items() if to is CircuitState.OPEN)
            if changes
            else 0,
        )

    def failures_in_a_row(self) -> int:
        """Failures since the last success that acted on the state."""
        return self._failures_in_a_row + self._allowance_taken()

    def rejections(self) -> int:
        """Lifetime count of refused calls."""
        phase = self.phase
        return self._rejections + (_taken(phase.refusals) if isinstance(phase, Open) else 0)

    def in_flight(self) -> int:
        """Calls admitted and not ended."""
        totals = self.totals()
        ended = totals.successes + totals.failures + self._ignored - self._overdue
        return max(0, self._admitted + self._permits_taken() - ended)

    def retry_after(self, now: float) -> float:
        """Seconds until a call may be admitted; 0.0 unless open."""
        return max(0.0, self.phase.until - now) if isinstance(self.phase, Open) else 0.0

    def advance(self, now: float) -> None:
        """Let the time that has passed act.

        An open circuit whose wait is over becomes half-open. A probe past its deadline counts as
        one failure at that deadline: the circuit is open again since then, perhaps for so long
        already that it is half-open once more.
        """
        while True:
            phase = self.phase
            if isinstance(phase, Open) and now >= phase.until:
                self._change(HalfOpen())
            elif isinstance(phase, HalfOpen) and phase.probes and now >= phase.probes[0].deadline:
                probe = phase.probes[0]
                probe.overdue = True
                self._overdue += 1
                self._failures += 1
                self._failures_in_a_row += 1
                self._reopen(probe.deadline, overdue=True)
            else:
                return

    def try_acquire(self, now: float) -> Permit | None:
        """Ask whether one call may run now.

        Returns:
            The permit to hand back with the outcome, or None when the circuit refuses. A refusal
            is counted.
        """
        self.advance(now)
        phase = self.phase
        if isinstance(phase, Closed):
            self._admitted += 1
            return phase
        if isinstance(phase, HalfOpen) and len(phase.probes) < self.half_open_max_calls:
            self._admitted += 1
            probe = Probe(phase, now + self.probe_timeout)
            phase.probes.append(probe)
            return probe
        self._rejections += 1
        return None

    def record_success(self, permit: Permit, now: float) -> bool:
        """Hand a permit back: its call succeeded.

        Returns:
            Whether it was counted; a probe that was overdue has been, as a failure.
        """
        phase = self._hand_back(permit, now)
        if permit.overdue:
            return False
        next(self.successes)
        if isinstance(phase, Closed):
            # Quiet again first: a failure that another thread counts meanwhile undoes it.
            phase.quiet = self._quiet_successes
            self._allow(phase, self.failure_threshold - 1)
            self._failures_in_a_row = 0
        elif isinstance(phase, HalfOpen):
            phase.successes += 1
            self._failures_in_a_row = 0
            if phase.successes >= self.success_threshold:
                self._close()
        return True

    def record_failure(self, permit: Permit, now: float) -> bool:
        """Hand a permit back: its call failed.

        Returns:
            Whether it was counted; a probe that was overdue has been already.
        """
        phase = self._hand_back(permit, now)
        if permit.overdue:
            return False
        self._failures += 1
        if isinstance(phase, Closed):
            phase.quiet = False
            self._allow(phase, 0)
            self._failures_in_a_row += 1
            remaining = self.failure_threshold - self._failures_in_a_row
            if remaining <= 0:
                self._open(now)
            else:
                self._allow(phase, remaining - 1)
        elif isinstance(phase, HalfOpen):
            self._failures_in_a_row += 1
            self._reopen(now)
        return True

    def release(self, permit: Permit, now: float) -> None:
        """Hand a permit back: its call says nothing about the dependency."""
        self._hand_back(permit, now)
        if not permit.overdue:
            self._ignored += 1

    def reset(self) -> None:
        """Close, forget failures in a row and the backoff, and make calls in flight stale."""
        self._close()

    def force_state(self, state: CircuitState, now: float) -> None:
        """Begin a new stay in `state`, whatever came before."""
        if state is CircuitState.CLOSED:
            self._close()
        elif state is CircuitState.OPEN:
            self._open(now)
        else:
            self._change(HalfOpen())

    def move_opening(self, since: float) -> None:
        """Make the current stay in OPEN, if it is one, begin at `since`."""
        if isinstance(self.phase, Open):
            self.phase.until = since + self.phase.wait_seconds

    def take_transitions(self) -> list[Transition] | None:
        """The changes of state since this was last asked, oldest first; None for none."""
        transitions, self._transitions = self._transitions, None
        return transitions

    def _hand_back(self, permit: Permit, now: float) -> Phase | None:
        """End the permit's call; the phase it may still act on, or None when it is stale."""
        self.advance(now)
        if isinstance(permit, Closed):
            return permit if permit is self.phase else None
        if permit.overdue:
            self._overdue -= 1
            return None
        if permit.phase is not self.phase:
            return None
        permit.phase.probes.remove(permit)
        return permit.phase

    def _close(self) -> None:
        self._reopenings = 0
        self._change(Closed(self._quiet_successes))
        self._failures_in_a_row = 0
        self._rejections_when_closed = self.rejections()

    def _reopen(self, since: float, *, overdue: bool = False) -> None:
        self._reopenings += 1
        self._open(since, overdue=overdue)

    def _open(self, since: float, *, overdue: bool = False) -> None:
        wait = self.wait_rule.wait_seconds(
            self.recovery_timeout, self._reopenings, self.totals().openings + 1
        )
        self._change(Open(since, wait), overdue_since=since if overdue else None)

    def _begin(self, phase: Phase) -> None:
        self.phase: Phase = phase
        self.phase_memo: Any = None
        self.permits: repeat[Closed] = _NO_PERMITS
        if isinstance(phase, Closed) and GIL_ENABLED:
            self.permits = repeat(phase, ENDLESS)

    def _change(self, phase: Phase, *, overdue_since: float | None = None) -> None:
        """End the current phase and begin another: the one way in which the state changes."""
        before = self.phase
        if isinstance(before, Closed):
            self._allow(before, 0)
        self._admitted += self._permits_taken()
        self._rejections = self.rejections()
        self._begin(phase)
        if before.state is phase.state:
            return
        change = (before.state, phase.state)
        self.state_changes = self.state_changes or {}
        self.state_changes[change] = self.state_changes.get(change, 0) + 1
        self._transitions = self._transitions or []
        self._transitions.append(
            Transition(
                *change,
                wait_seconds=phase.wait_seconds if isinstance(phase, Open) else None,
                failure_count=self._failures_in_a_row,
                overdue_since=overdue_since,
                rejections=self._rejections - self._rejections_when_closed,
            )
        )

    def _allow(self, phase: Closed, failures: int) -> None:
        """Let so many failures pass without the lock, and take over those that did so far."""
        before, phase.allowance = phase.allowance, _NO_FAILURES
        taken = self._allowed - length_hint(before)
        self._failures += taken
        self._failures_in_a_row += taken
        self._allowed = failures if self._quiet_failures else 0
        if self._allowed:
            phase.allowance = repeat(True, self._allowed)

    def _allowance_taken(self) -> int:
        phase = self.phase
        return self._allowed - length_hint(phase.allowance) if isinstance(phase, Closed) else 0

    def _permits_taken(self) -> int:
        """Admissions of the current phase that went through `permits`."""
        return 0 if self.permits is _NO_PERMITS else _taken(self.permits)


def _taken(counter: "repeat[None] | repeat[Closed]") -> int:
    """How often a counter made with `ENDLESS` was advanced."""
    return ENDLESS - length_hint(counter)
