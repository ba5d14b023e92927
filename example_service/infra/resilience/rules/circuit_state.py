"""The rules of the circuit: states, counters and transitions.

Everything here is synchronous, does no input or output, and is told the time: `now` is always an
argument, in seconds on a clock of which only differences matter. `CircuitBreaker` is the shell
that holds the clock, the lock and the listeners.

    CLOSED --- failure_threshold failures in a row ---> OPEN
    CLOSED --- the share of failures in a window -----> OPEN
    OPEN ----- the open wait is over -----------------> HALF_OPEN
    HALF_OPEN  success_threshold successes -----------> CLOSED
    HALF_OPEN  a failure, or an overdue probe --------> OPEN, for a longer wait

A call that runs past its deadline is overdue: it counts as one failure at that deadline, whatever
it does afterwards. No timer is needed, the next look at the circuit lets the deadline act.

Each stay in a state is an object of its own, a *phase*, and a call carries the phase that admitted
it. An outcome whose phase is over is stale: it counts in the totals and changes nothing else
(sony/gobreaker calls this a generation).
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import repeat
from math import inf
from operator import itemgetter, length_hint
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


class Mode(StrEnum):
    """What somebody has set by hand, over the rules."""

    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    SHADOW = "shadow"


@dataclass(slots=True)
class ManualMode:
    """A mode that holds now.

    Attributes:
        mode: Which one.
        reason: Why, in the words of whoever set it.
        until: When it ends, in seconds on the clock; None for not before a reset.
        would_have_rejected: Calls that shadow mode has let through.
    """

    mode: Mode
    reason: str
    until: float | None
    would_have_rejected: int = 0


class ShortCuts(NamedTuple):
    """Which steps need no lock, because nothing but a count hears of them.

    Attributes:
        admissions: Calls let through by a closed circuit.
        successes: Successes that reset nothing.
        failures: Failures below the threshold.
    """

    admissions: bool
    successes: bool
    failures: bool


ALL_SHORT_CUTS = ShortCuts(admissions=True, successes=True, failures=True)
NO_SHORT_CUTS = ShortCuts(admissions=False, successes=False, failures=False)


class ResultWindow(Protocol):
    """Recent results of one stay in CLOSED."""

    def record(self, now: float, *, failed: bool) -> None:
        """Add one result."""
        ...

    def counts(self, now: float) -> tuple[int, int]:
        """Failures and calls in the window."""
        ...


class RateRule(Protocol):
    """Says when the share of failures is too large."""

    def window(self) -> ResultWindow:
        """An empty window."""
        ...

    def is_reached(self, failures: int, calls: int) -> bool:
        """Whether so many failures among so many calls open the circuit."""
        ...


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
    """A stay in CLOSED, and at once the permit of every call that it admits without timing it.

    Two things spare an outcome the lock. A success under a permit that is `quiet` changes nothing
    but its count. A failure for which `next(allowance, None)` gives something is thereby counted,
    and does not open the circuit; it makes the permit no longer quiet.
    """

    __slots__ = ("allowance", "quiet", "window")
    state: ClassVar = CircuitState.CLOSED
    overdue: ClassVar = False
    started: ClassVar = None

    def __init__(self, quiet: bool, window: ResultWindow | None) -> None:
        self.quiet = quiet
        self.allowance = _NO_FAILURES
        self.window = window


class Open:
    """A stay in OPEN: refuses every call until `until`."""

    __slots__ = ("until", "wait_seconds")
    state: ClassVar = CircuitState.OPEN

    def __init__(self, since: float, wait_seconds: float) -> None:
        self.wait_seconds = wait_seconds
        self.until = since + wait_seconds


class HalfOpen:
    """A stay in HALF_OPEN: the probes that run now, oldest first, and the successes so far."""

    __slots__ = ("probes", "successes")
    state: ClassVar = CircuitState.HALF_OPEN

    def __init__(self) -> None:
        self.probes: list[TimedCall] = []
        self.successes = 0


class TimedCall:
    """The permit of one call whose time counts: a probe, or any call where calls are timed.

    `phase` is None where shadow mode let the call through that the rules refuse.
    """

    __slots__ = ("deadline", "overdue", "phase", "started")
    quiet: bool = False
    allowance: "repeat[bool]" = _NO_FAILURES

    def __init__(self, phase: "Closed | HalfOpen | None", started: float, deadline: float) -> None:
        self.phase = phase
        self.started = started
        self.deadline = deadline
        self.overdue = False


# The permit of a call of which only the outcome is known: it counts and changes nothing else.
STALE_PERMIT = Closed(False, None)

Permit: TypeAlias = Closed | TimedCall
Phase: TypeAlias = Closed | Open | HalfOpen


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, as the rules saw it.

    Attributes:
        from_state: The state before.
        to_state: The state after.
        wait_seconds: Seconds until a probe may be admitted, where `to_state` is open.
        failure_count: Failures in a row that led to it.
        cause: What led to it: the rule and its numbers.
        rejections: Calls refused since the circuit was last closed.
    """

    from_state: CircuitState
    to_state: CircuitState
    wait_seconds: float | None
    failure_count: int
    cause: str
    rejections: int


class Overdue(NamedTuple):
    """A call passed its deadline.

    Attributes:
        deadline: When, in seconds on the clock.
        seconds: How long it had been running by then.
    """

    deadline: float
    seconds: float


class Totals(NamedTuple):
    """Lifetime counts of one circuit; they never go down.

    `shadow_rejections` are calls that shadow mode let through against the rules.
    """

    failures: int
    successes: int
    rejections: int
    openings: int
    shadow_rejections: int


NO_TOTALS = Totals(failures=0, successes=0, rejections=0, openings=0, shadow_rejections=0)
NO_PERMITS: "repeat[Closed]" = repeat(Closed(False, None), 0)
NO_REFUSALS = repeat(None, 0)


class CircuitStateMachine:
    """One circuit's state. Not thread-safe: the breaker calls every method under its lock.

    What is read and advanced without the lock, by the breaker's short cuts: `permits` hands out
    the CLOSED phase as a permit and is empty in any other state, so that `next(permits, None)`
    checks the state, takes the permit and counts the admission in one atomic step. In the same way
    `next(successes)` counts a success, `next(permit.allowance, None)` a failure below the
    threshold, and `next(refusals)` a refused call.
    `phase_memo` is a place for what the breaker wants to keep until the phase ends.

    Args:
        failure_threshold: Failures in a row that open a closed circuit.
        recovery_timeout: Seconds of the first open wait.
        success_threshold: Successes in HALF_OPEN that close it.
        half_open_max_calls: Probes at once in HALF_OPEN.
        probe_timeout: Seconds after which a running probe counts as failed.
        wait_rule: How the open wait grows with each failed recovery.
        rate_rule: What share of failures opens a closed circuit; None for no such rule.
        slow_call_duration: Seconds after which a call that still runs counts as failed; None for
            no such rule.
        short_cuts: Which steps need no lock. Where admissions do, each call is timed.
    """

    __slots__ = (
        "_allowed",
        "_failures",
        "_failures_in_a_row",
        "_happenings",
        "_outcomes_due",
        "_rejections_when_closed",
        "_reopenings",
        "_running",
        "_shadow_rejections",
        "_short_cuts",
        "failure_threshold",
        "half_open_max_calls",
        "mode",
        "permits",
        "phase",
        "phase_memo",
        "probe_timeout",
        "rate_rule",
        "recovery_timeout",
        "refusals",
        "slow_call_duration",
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
        rate_rule: RateRule | None,
        slow_call_duration: float | None,
        short_cuts: ShortCuts,
    ) -> None:
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self.success_threshold = success_threshold
        self.half_open_max_calls = half_open_max_calls
        self.probe_timeout = probe_timeout
        self.wait_rule = wait_rule
        self.rate_rule = rate_rule
        self.slow_call_duration = slow_call_duration
        self._short_cuts = short_cuts
        # Running calls and when they become slow, oldest first.
        self._running: OrderedDict[TimedCall, float] | None = None
        self.mode: ManualMode | None = None
        self._failures = 0
        self._failures_in_a_row = 0
        self._allowed = 0
        self.successes = repeat(None, ENDLESS)
        self.state_changes: dict[tuple[CircuitState, CircuitState], int] | None = None
        # Successes and failures there will have been when every call so far has ended, without
        # those that `permits` admits. An overdue call, counted already, stands for one more.
        self._outcomes_due = 0
        self._reopenings = 0
        # Made when there is something to refuse, which for most circuits is never.
        self.refusals = NO_REFUSALS
        self._rejections_when_closed = 0
        self._shadow_rejections = 0
        self._happenings: list[Transition | Overdue] | None = None
        closed = Closed(short_cuts.successes, None if rate_rule is None else rate_rule.window())
        self.phase: Phase = closed
        self.phase_memo: Any = None
        self.permits = repeat(closed, ENDLESS) if short_cuts.admissions else NO_PERMITS

    def totals(self) -> Totals:
        """Lifetime counts up to this moment."""
        openings = 0
        if changes := self.state_changes:
            openings = sum(n for (_, to), n in changes.items() if to is CircuitState.OPEN)
        # By position, as each scrape asks every breaker.
        return Totals(
            self._failures + self._allowance_taken(),
            _taken(self.successes),
            self.rejections(),
            openings,
            self._shadow_rejections,
        )

    def failures_in_a_row(self) -> int:
        """Failures since the last success that acted on the state."""
        return self._failures_in_a_row + self._allowance_taken()

    def rejections(self) -> int:
        """Lifetime count of refused calls."""
        return _taken(self.refusals)

    def in_flight(self, totals: Totals | None = None) -> int:
        """Calls admitted and not ended.

        Args:
            totals: What `totals` gave just now, for a caller that has it.
        """
        if totals is None:
            totals = self.totals()
        due = self._outcomes_due + _taken(self.permits)
        return max(0, due - totals.successes - totals.failures)

    def retry_after(self, now: float) -> float | None:
        """Seconds until a call may be admitted: 0.0 unless open, None when forced open for good."""
        if not isinstance(self.phase, Open):
            return 0.0
        return None if self.phase.until == inf else max(0.0, self.phase.until - now)

    def is_timeless(self) -> bool:
        """Whether nothing here depends on what time it is."""
        return isinstance(self.phase, Closed) and not self._running and self.mode is None

    def advance(self, now: float) -> None:
        """Let the time that has passed act.

        A mode set by hand ends. A call past its deadline counts as one failure at that deadline.
        An open circuit whose wait is over becomes half-open; a circuit that a probe's deadline
        re-opened has been open since then, perhaps for so long that it is half-open once more.
        """
        while not self.is_timeless() and (due := self._next_due()) and now >= due[0]:
            due[1]()

    def _next_due(self) -> tuple[float, Callable[[], None]] | None:
        """What time does next, and when; None where time does nothing."""
        due: list[tuple[float, Callable[[], None]]] = []
        if self._running:
            call, slow_at = next(iter(self._running.items()))
            due.append((slow_at, partial(self._count_overdue, call, slow_at)))
        phase = self.phase
        if isinstance(phase, HalfOpen) and phase.probes:
            probe = phase.probes[0]
            due.append((probe.deadline, partial(self._count_overdue, probe, probe.deadline)))
        if self.mode is not None and self.mode.until is not None:
            due.append((self.mode.until, self._end_mode))
        if isinstance(phase, Open):
            due.append((phase.until, partial(self._change, HalfOpen(), "the open wait is over")))
        # Of what falls on one moment the first named comes first.
        return min(due, key=itemgetter(0), default=None)

    def try_acquire(self, now: float) -> Permit | None:
        """Ask whether one call may run now.

        Returns:
            The permit to hand back with the outcome, or None when the circuit refuses. A refusal
            is counted.
        """
        self.advance(now)
        phase = self.phase
        if isinstance(phase, Closed):
            self._outcomes_due += 1
            return phase if self._short_cuts.admissions else self._timed_call(phase, now, inf)
        if isinstance(phase, HalfOpen) and len(phase.probes) < self.half_open_max_calls:
            self._outcomes_due += 1
            probe = self._timed_call(phase, now, now + self.probe_timeout)
            phase.probes.append(probe)
            return probe
        if self.mode is not None and self.mode.mode is Mode.SHADOW:
            self._outcomes_due += 1
            self.mode.would_have_rejected += 1
            self._shadow_rejections += 1
            return self._timed_call(None, now, inf)
        next(self.refusals)
        return None

    def record_success(self, permit: Permit, now: float) -> bool:
        """Hand a permit back: its call succeeded.

        Returns:
            Whether it was counted; a call that was overdue has been, as a failure.
        """
        phase = self._hand_back(permit, now)
        if permit.overdue:
            return False
        next(self.successes)
        if isinstance(phase, Closed):
            # Quiet again first: a failure that another thread counts meanwhile undoes it.
            phase.quiet = self._short_cuts.successes
            self._allow(phase, self.failure_threshold - 1)
            self._failures_in_a_row = 0
            self._judge_share(phase, now, failed=False)
        elif isinstance(phase, HalfOpen):
            phase.successes += 1
            self._failures_in_a_row = 0
            if phase.successes >= self.success_threshold:
                self._close(f"{phase.successes} probes succeeded")
        return True

    def record_failure(self, permit: Permit, now: float) -> bool:
        """Hand a permit back: its call failed.

        Returns:
            Whether it was counted; a call that was overdue has been already.
        """
        phase = self._hand_back(permit, now)
        if permit.overdue:
            return False
        self._failures += 1
        self._act_on_failure(phase, now, "a probe failed")
        return True

    def release(self, permit: Permit, now: float) -> None:
        """Hand a permit back: its call says nothing about the dependency."""
        self._hand_back(permit, now)
        if not permit.overdue:
            self._outcomes_due -= 1

    def reset(self) -> None:
        """Close, forget failures in a row, backoff and mode, and make calls in flight stale."""
        self.mode = None
        self._close("reset by hand")

    def force_open(self, reason: str, now: float, until: float | None) -> ManualMode:
        """Refuse every call until `until`, or for good; then the circuit is half-open."""
        self.mode = ManualMode(Mode.FORCED_OPEN, reason, until)
        wait = inf if until is None else until - now
        self._change(Open(now, wait), f"forced open by hand: {reason}")
        return self.mode

    def disable(self, reason: str, until: float | None) -> ManualMode:
        """Let every call through and open for none."""
        self.mode = ManualMode(Mode.DISABLED, reason, until)
        self._close(f"disabled by hand: {reason}")
        return self.mode

    def shadow(self, reason: str, until: float | None) -> ManualMode:
        """Go on deciding, and let through what would be refused; set once more, go on with that."""
        before, mode = self.mode, ManualMode(Mode.SHADOW, reason, until)
        self.mode = mode
        if before is not None and before.mode is Mode.SHADOW:
            mode.would_have_rejected = before.would_have_rejected
        elif before is not None or isinstance(self.phase, Closed):
            self._close(f"shadowed by hand: {reason}")
        return mode

    def force_state(self, state: CircuitState, since: float) -> None:
        """Begin a new stay in `state`, whatever came before."""
        cause = "set by hand"
        if state is CircuitState.CLOSED:
            self._close(cause)
        elif state is CircuitState.OPEN:
            self._open(since, cause)
        else:
            self._change(HalfOpen(), cause)

    def move_opening(self, since: float) -> None:
        """Make the current stay in OPEN, if it is one, begin at `since`."""
        if isinstance(self.phase, Open):
            self.phase.until = since + self.phase.wait_seconds

    def take_happenings(self) -> list[Transition | Overdue] | None:
        """What has happened since this was last asked, in order; None for nothing."""
        happenings, self._happenings = self._happenings, None
        return happenings

    def _hand_back(self, permit: Permit, now: float) -> Phase | None:
        """End the permit's call; the phase it may still act on, or None when it is stale."""
        self.advance(now)
        if isinstance(permit, Closed):
            return permit if permit is self.phase else None
        if permit.overdue:
            self._outcomes_due -= 1
            return None
        if self._running is not None:
            self._running.pop(permit, None)
        phase = permit.phase
        if phase is not self.phase:
            return None
        if isinstance(phase, HalfOpen):
            phase.probes.remove(permit)
        return phase

    def _timed_call(
        self, phase: Closed | HalfOpen | None, now: float, deadline: float
    ) -> TimedCall:
        """The permit of a call whose time counts."""
        call = TimedCall(phase, now, deadline)
        if self.slow_call_duration is not None:
            if self._running is None:
                self._running = OrderedDict()
            self._running[call] = now + self.slow_call_duration
        return call

    def _count_overdue(self, call: TimedCall, at: float) -> None:
        """Count a call as failed, while it runs on."""
        if self._running is not None:
            self._running.pop(call, None)
        call.overdue = True
        self._outcomes_due += 1
        self._failures += 1
        self._note(Overdue(at, at - call.started))
        phase = call.phase if call.phase is self.phase else None
        cause = f"a probe did not end within {at - call.started:g} seconds"
        self._act_on_failure(phase, at, cause)

    def _note(self, happening: Transition | Overdue) -> None:
        self._happenings = self._happenings or []
        self._happenings.append(happening)

    def _act_on_failure(self, phase: Phase | None, at: float, cause_in_half_open: str) -> None:
        """Let a failure act on the phase that admitted its call; None where that is over."""
        if isinstance(phase, HalfOpen):
            self._failures_in_a_row += 1
            self._reopenings += 1
            self._open(at, cause_in_half_open)
        elif isinstance(phase, Closed):
            phase.quiet = False
            self._allow(phase, 0)
            self._failures_in_a_row += 1
            if self.mode is not None and self.mode.mode is Mode.DISABLED:
                return
            remaining = self.failure_threshold - self._failures_in_a_row
            if remaining <= 0:
                failures = "failure" if self._failures_in_a_row == 1 else "failures"
                self._open(at, f"{self._failures_in_a_row} {failures} in a row")
                return
            self._allow(phase, remaining - 1)
            self._judge_share(phase, at, failed=True)

    def _judge_share(self, phase: Closed, now: float, *, failed: bool) -> None:
        """Add a result to the window, and open where the share of failures is too large."""
        if phase.window is None or self.rate_rule is None:
            return
        phase.window.record(now, failed=failed)
        failures, calls = phase.window.counts(now)
        if self.rate_rule.is_reached(failures, calls):
            self._open(now, f"{failures} of the last {calls} calls failed")

    def _end_mode(self) -> None:
        """Go back to the rules; a circuit forced open becomes half-open when its wait ends."""
        self.mode = None
        if isinstance(self.phase, Closed):
            self._close("the mode set by hand ended")

    def _closed(self) -> Closed:
        rule = self.rate_rule
        disabled = self.mode is not None and self.mode.mode is Mode.DISABLED
        window = None if rule is None or disabled else rule.window()
        return Closed(self._short_cuts.successes, window)

    def _close(self, cause: str) -> None:
        self._reopenings = 0
        self._change(self._closed(), cause)
        self._failures_in_a_row = 0
        self._rejections_when_closed = self.rejections()

    def _open(self, since: float, cause: str) -> None:
        wait = self.wait_rule.wait_seconds(
            self.recovery_timeout, self._reopenings, self.totals().openings + 1
        )
        self._change(Open(since, wait), cause)

    def _change(self, phase: Phase, cause: str) -> None:
        """End the current phase and begin another: the one way in which the state changes."""
        before, permits = self.phase, self.permits
        if isinstance(before, Closed):
            self._allow(before, 0)
        self.phase, self.phase_memo, self.permits = phase, None, NO_PERMITS
        if not isinstance(phase, Closed):
            if self.refusals is NO_REFUSALS:
                self.refusals = repeat(None, ENDLESS)
        elif self._short_cuts.admissions and self.mode is None:
            self.permits = repeat(phase, ENDLESS)
        # Only now, when nobody can take another.
        self._outcomes_due += _taken(permits)
        if before.state is phase.state:
            return
        change = (before.state, phase.state)
        changes = self.state_changes or {}
        # A new dictionary, so that whoever reads the old one may go on.
        self.state_changes = {**changes, change: changes.get(change, 0) + 1}
        self._note(
            Transition(
                *change,
                wait_seconds=phase.wait_seconds if isinstance(phase, Open) else None,
                failure_count=self._failures_in_a_row,
                cause=cause,
                rejections=self.rejections() - self._rejections_when_closed,
            )
        )

    def _allow(self, phase: Closed, failures: int) -> None:
        """Let so many failures pass without the lock, and take over those that did so far."""
        before, phase.allowance = phase.allowance, _NO_FAILURES
        taken = self._allowed - length_hint(before)
        self._failures += taken
        self._failures_in_a_row += taken
        self._allowed = failures if self._short_cuts.failures else 0
        if self._allowed:
            phase.allowance = repeat(True, self._allowed)

    def _allowance_taken(self) -> int:
        phase = self.phase
        return self._allowed - length_hint(phase.allowance) if isinstance(phase, Closed) else 0


def _taken(counter: "repeat[None] | repeat[Closed]") -> int:
    """How often a counter made with `ENDLESS` was advanced; 0 for one that is empty."""
    left = length_hint(counter)
    return ENDLESS - left if left else 0
