"""The rules of a circuit: synchronous code without a clock, a lock, or I/O.

    CLOSED      failure_threshold failures in a row  ->  OPEN
    CLOSED      too large a share of failures        ->  OPEN
    OPEN        the wait is over                     ->  HALF_OPEN
    HALF_OPEN   success_threshold successes          ->  CLOSED
    HALF_OPEN   a failure, or a probe that hangs     ->  OPEN, for longer

`phases` says what happens within one period in a state. This module says when a period ends and
which one follows. Every method takes the current time as `now`, in seconds on a clock of which only
differences matter, and first lets the time that has passed act: no timer is needed.

A call carries the period that admitted it. Once that period is over the outcome is late: it counts
in the totals and changes nothing else (sony/gobreaker calls a period a generation).
"""

from collections.abc import Callable
from functools import partial
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.rules.lockfree import EMPTY, endless, taken
from example_service.infra.resilience.rules.phases import (
    COUNTED,
    STALE,
    Closed,
    HalfOpen,
    Open,
    Permit,
    Phase,
    ShortCuts,
    TimedCall,
    timed_call,
)
from example_service.infra.resilience.rules.records import (
    NO_TOTALS,
    ManualMode,
    Overdue,
    Totals,
    Transition,
)
from example_service.infra.resilience.rules.states import CircuitState, Mode

if TYPE_CHECKING:
    from example_service.infra.resilience.rules.gate import Gate

_NEVER = 1 << 62
"""Failures in a row that open a disabled circuit."""


class CircuitStateMachine:
    """One circuit. The breaker calls its methods under a lock.

    Without the lock, a caller may advance `permits`, which yields the current `Closed` period as
    the permit of a call that is not timed; `successes`; `refusals`; and the `allowance` of a
    permit. See `lockfree`. Before the moment `due`, time changes nothing. Until then a caller may
    also advance `admissions`, which yields the current `Closed` period for a timed call, add that
    call to `running`, and remove it there at its end: whoever removes it, the caller or time,
    counts its outcome.

    `phase_memo` keeps what the breaker wants to remember until the period ends. `gate` is asked
    before each probe, if there is one; a closed circuit never asks.

    Args:
        failure_threshold: Failures in a row that open a closed circuit.
        recovery_timeout: Seconds of the first open wait.
        success_threshold: Successes in HALF_OPEN that close it.
        half_open_max_calls: Probes that may run at once.
        probe_timeout: Seconds after which a running probe counts as a failure.
        backoff: How the open wait grows with each failed recovery.
        failure_rate: The share of failures that opens a closed circuit; None for no such rule.
        slow_call_duration: Seconds after which a running call counts as a failure; None for no
            such rule.
        is_timed: Whether each call gets a permit of its own, which knows when it started.
        short_cuts: Which steps need no lock.
    """

    __slots__ = (
        "_failures",
        "_happenings",
        "_outcomes_due",
        "_rejections_when_closed",
        "_reopenings",
        "_shadow_rejections",
        "_short_cuts",
        "admissions",
        "backoff",
        "due",
        "failure_rate",
        "failure_threshold",
        "gate",
        "half_open_max_calls",
        "is_timed",
        "mode",
        "permits",
        "phase",
        "phase_memo",
        "probe_timeout",
        "recovery_timeout",
        "refusals",
        "running",
        "slow_call_duration",
        "state_changes",
        "success_threshold",
        "successes",
        "totals_at_reset",
    )

    def __init__(  # noqa: PLR0917 - By position: keywords would take a tenth of the construction.
        self,
        failure_threshold: int,
        recovery_timeout: float,
        success_threshold: int,
        half_open_max_calls: int,
        probe_timeout: float,
        backoff: Backoff,
        failure_rate: FailureRate | None,
        slow_call_duration: float | None,
        is_timed: bool,
        short_cuts: ShortCuts,
    ) -> None:
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self.success_threshold = success_threshold
        self.half_open_max_calls = half_open_max_calls
        self.probe_timeout = probe_timeout
        self.backoff = backoff
        self.failure_rate = failure_rate
        self.slow_call_duration = slow_call_duration
        self.is_timed = is_timed
        self._short_cuts = short_cuts
        # Running calls and when they started, oldest first, if there is the rule on slow calls.
        self.running: dict[TimedCall, float] | None = None if slow_call_duration is None else {}
        self.due = inf if slow_call_duration is None else -inf
        self.mode: ManualMode | None = None
        self.gate: Gate | None = None
        self.successes = endless(None)
        # Created when the circuit first opens, which most circuits never do.
        self.refusals = EMPTY
        self.state_changes: dict[tuple[CircuitState, CircuitState], int] | None = None
        self.totals_at_reset = NO_TOTALS
        self._failures = self._reopenings = 0
        self._rejections_when_closed = self._shadow_rejections = 0
        # Admissions except those that `admissions` counts. A call counted while it runs is two.
        self._outcomes_due = 0
        self._happenings: list[Transition | Overdue] | None = None
        window = None if failure_rate is None else failure_rate.window()
        closed = Closed(failure_threshold, window, self.successes, short_cuts)
        self.phase: Phase = closed
        self.phase_memo: Any = None
        self.admissions: Any = endless(closed) if short_cuts.admissions else EMPTY
        self.permits: Any = EMPTY if is_timed else self.admissions

    # What happened so far.

    def totals(self) -> Totals:
        """Lifetime counts up to this moment."""
        phase, openings = self.phase, 0
        if changes := self.state_changes:
            openings = sum(n for (_, to), n in changes.items() if to is CircuitState.OPEN)
        return Totals(  # By position, because each scrape asks every breaker.
            self._failures + (phase.failures if isinstance(phase, Closed) else 0),
            taken(self.successes),
            taken(self.refusals),
            openings,
            self._shadow_rejections,
        )

    def failures_in_a_row(self) -> int:
        """Failures since the last success that acted on the state."""
        return self.phase.failures_in_a_row

    def rejections(self) -> int:
        """Lifetime count of refused calls."""
        return taken(self.refusals)

    def in_flight(self, totals: Totals | None = None) -> int:
        """Calls that are running now.

        Args:
            totals: What `totals` has just returned, if the caller has it.
        """
        totals = totals or self.totals()
        admitted = self._outcomes_due + taken(self.admissions)
        return max(0, admitted - totals.successes - totals.failures)

    def retry_after(self, now: float) -> float | None:
        """Seconds until a call may run: 0.0 unless open, None when open without an end."""
        if not isinstance(self.phase, Open):
            return 0.0
        return None if self.phase.until == inf else max(0.0, self.phase.until - now)

    def window_counts(self, now: float) -> tuple[int, int] | None:
        """Failures and calls in the window of `failure_rate`; None while there is no window."""
        return self.phase.window_counts(now) if isinstance(self.phase, Closed) else None

    def take_happenings(self) -> list[Transition | Overdue] | None:
        """What has happened since the last call of this method, in order; None for nothing."""
        happenings, self._happenings = self._happenings, None
        return happenings

    # Time.

    def advance(self, now: float) -> None:
        """Let the time that has passed act, in the order of the moments at which it acts.

        A mode ends. A call past its deadline counts as one failure at that deadline. An open
        circuit whose wait is over becomes half-open; one that the deadline of a probe re-opened
        has been open since then, perhaps for so long that it is half-open once more.
        """
        if now < self.due:
            return
        while (due := self._next_due()) is not None and now >= due[0]:
            due[1]()
        self._reschedule(now)

    def _next_due(self) -> tuple[float, Callable[[], None]] | None:
        """The next moment at which time acts, and how; None for never."""
        due: list[tuple[float, Callable[[], None]]] = []
        phase = self.phase
        if self.slow_call_duration is not None and (call := self._oldest_running()) is not None:
            slow_at = call.started + self.slow_call_duration
            act = partial(self._count_overdue, call, slow_at, "slow_call_duration")
            due.append((slow_at, act))
        if isinstance(phase, HalfOpen) and phase.probes:
            probe = phase.probes[0]
            deadline = probe.started + self.probe_timeout
            act = partial(self._count_overdue, probe, deadline, "probe_timeout")
            due.append((deadline, act))
        if self.mode is not None and self.mode.until is not None:
            due.append((self.mode.until, self._end_mode))
        if isinstance(phase, Open) and phase.until < inf and self._may_probe():
            due.append((phase.until, partial(self._half_open, "the open wait is over")))
        if isinstance(phase, Closed) and phase.steady_until < inf:
            due.append((phase.steady_until, phase.unsteady))
        # Of several at one moment, the first in this list comes first.
        return min(due, key=itemgetter(0), default=None)

    def _oldest_running(self) -> TimedCall | None:
        while self.running:
            try:
                return next(iter(self.running))
            except (RuntimeError, StopIteration):
                continue  # Another thread has added or removed a call.
        return None

    def _may_probe(self) -> bool:
        return self.gate is None or self.gate.is_open()

    def _reschedule(self, now: float) -> None:
        """Note when time acts next. A slow call that starts later cannot be due earlier."""
        due = self._next_due()
        self.due = inf if due is None else due[0]
        if self.gate is not None and isinstance(self.phase, Open):
            self.due = min(self.due, self.phase.until)  # The gate opens at any moment after it.
        if self.slow_call_duration is not None:
            self.due = min(self.due, now + self.slow_call_duration)

    def _count_overdue(self, call: TimedCall, at: float, parameter: str) -> None:
        """Count a call as failed while it is still running, unless it has just ended."""
        if self.running is not None and self.running.pop(call, None) is None:
            return
        phase = self._leave(call)
        call.phase = COUNTED
        self._outcomes_due += 1
        self._note(Overdue(at, at - call.started))
        cause = f"a probe did not end within {at - call.started:g} seconds ({parameter})"
        self._count_failure(phase, at, cause)

    # Calls.

    def _has_right(self, phase: Closed | HalfOpen) -> bool:
        """Whether the gate, if there is one, lets a call of this period run."""
        if self.gate is None or isinstance(phase, Closed) or self.gate.take():
            return True
        self.gate.ask()
        return False

    def try_acquire(self, now: float) -> Permit | None:
        """Ask whether one call may run now. A refusal is counted.

        Returns:
            The permit to hand back with the outcome, or None if the circuit refuses.
        """
        self.advance(now)
        phase = self.phase
        if self.gate is not None and isinstance(phase, Open) and now >= phase.until:
            self.gate.ask()
        if not isinstance(phase, Open) and phase.has_room() and self._has_right(phase):
            permit = self._permit(phase, now)
        elif self.mode is not None and self.mode.mode is Mode.SHADOW:
            self.mode.would_have_rejected += 1
            self._shadow_rejections += 1
            permit = self._start(STALE, now)
        else:
            next(self.refusals)
            return None
        self._outcomes_due += 1
        self._reschedule(now)
        return permit

    def count_admission(self, now: float) -> None:  # noqa: ARG002
        """Count a call that runs without having asked for a permit."""
        self._outcomes_due += 1

    def count_rejection(self, now: float) -> None:  # noqa: ARG002
        """Count a call that was refused without having asked."""
        self.refusals = endless(None) if self.refusals is EMPTY else self.refusals
        next(self.refusals)

    def record_success(self, permit: Permit, now: float) -> bool:
        """Hand a permit back: its call succeeded. Returns whether that was counted."""
        phase = self._hand_back(permit, now)
        if phase is None:
            return False
        next(self.successes)
        current = self.phase
        if phase is not current:
            if isinstance(current, Closed):
                current.ignore_success()
        elif isinstance(current, Closed):
            if cause := current.succeed(now):
                self._open(now, cause)
        elif isinstance(current, HalfOpen):
            if self.gate is not None:
                self.gate.ended(succeeded=True)
            if cause := current.succeed():
                self._close(cause)
        self._reschedule(now)
        return True

    def record_failure(self, permit: Permit, now: float, open_for: float | None = None) -> bool:
        """Hand a permit back: its call failed. Returns whether that was counted.

        Args:
            permit: What `try_acquire` returned.
            now: Seconds on the clock.
            open_for: Seconds for which the dependency asked to be left alone, which opens the
                circuit at once; None if it did not ask.
        """
        phase = self._hand_back(permit, now)
        if phase is None:
            return False
        self._count_failure(phase, now, "a probe failed", open_for)
        self._reschedule(now)
        return True

    def release(self, permit: Permit, now: float) -> None:
        """Hand a permit back: its call says nothing about the dependency."""
        phase = self._hand_back(permit, now)
        if phase is not None:
            if self.gate is not None and isinstance(phase, HalfOpen) and phase is self.phase:
                self.gate.ended(succeeded=None)
            self._outcomes_due -= 1
            self._reschedule(now)

    def _permit(self, phase: Closed | HalfOpen, now: float) -> Permit:
        if isinstance(phase, Closed) and not self.is_timed:
            return phase
        call = self._start(phase, now)
        if isinstance(phase, HalfOpen):
            phase.probes.append(call)
        return call

    def _start(self, phase: Closed | HalfOpen, now: float) -> TimedCall:
        call = timed_call(phase, now)
        if self.running is not None:
            self.running[call] = now
        return call

    def _hand_back(self, permit: Permit, now: float) -> Phase | None:
        """End the permit's call. Returns its period, or None if it was counted already."""
        self.advance(now)
        if isinstance(permit, Closed):
            return permit
        if permit.phase is COUNTED:
            self._outcomes_due -= 1
            return None
        if self.running is not None:
            self.running.pop(permit, None)
        return self._leave(permit)

    def _leave(self, call: TimedCall) -> Phase:
        """Free the place of a call. Returns its period."""
        if isinstance(call.phase, HalfOpen):
            call.phase.probes.remove(call)
        return call.phase

    def _count_failure(
        self, phase: Phase, at: float, probe_cause: str, open_for: float | None = None
    ) -> None:
        """Count a failure of a call that `phase` admitted; late, it changes nothing else."""
        if phase is self.phase and isinstance(phase, Closed):
            cause = phase.fail(at)
            if open_for is not None and not self._is_disabled():
                cause = f"the dependency asked for a wait of {open_for:g} seconds"
            if cause is not None:
                self._open(at, cause, open_for)
            return
        self._failures += 1
        if phase is self.phase and isinstance(phase, HalfOpen):
            phase.failures_in_a_row += 1
            self._reopenings += 1
            self._open(at, probe_cause, open_for)

    def _is_disabled(self) -> bool:
        return self.mode is not None and self.mode.mode is Mode.DISABLED

    # Operators.

    def follow(
        self, state: CircuitState, cause: str, wait_seconds: float, reopenings: int, now: float
    ) -> None:
        """Open or close with the other processes, unless an operator has decided.

        Args:
            state: OPEN or CLOSED.
            cause: Why, for logs and listeners.
            wait_seconds: How long an open period lasts.
            reopenings: Failed recoveries so far, for the backoff.
            now: Seconds on the clock.
        """
        if self.mode is not None and self.mode.mode is not Mode.SHADOW:
            return
        if state is CircuitState.OPEN:
            self._open(now, cause, wait_seconds)
            self._reopenings = reopenings
        elif not isinstance(self.phase, Closed):
            self._close(cause)
        self._reschedule(now)

    @property
    def reopenings(self) -> int:
        """Failed recoveries since the circuit was last closed."""
        return self._reopenings

    def reset(self, now: float) -> None:
        """Close; forget failures in a row, failed recoveries and the mode."""
        self.mode = None
        self._close("reset by hand")
        self.totals_at_reset = self.totals()
        self._reschedule(now)

    def set_mode(self, mode: Mode, reason: str, now: float, until: float | None) -> ManualMode:
        """Override the rules until `until`, or until a reset."""
        before, self.mode = self.mode, ManualMode(mode, reason, until)
        if mode is Mode.FORCED_OPEN:
            wait = inf if until is None else until - now
            cause = f"forced open by hand: {reason}"
            self._change(Open(now, wait, self.failures_in_a_row()), cause)
        elif mode is Mode.DISABLED:
            self._close(f"disabled by hand: {reason}")
        elif before is not None and before.mode is Mode.SHADOW:
            self.mode.would_have_rejected = before.would_have_rejected
        elif before is not None or isinstance(self.phase, Closed):
            self._close(f"shadowed by hand: {reason}")
        self._reschedule(now)
        return self.mode

    def _end_mode(self) -> None:
        """Follow the rules again. A circuit that was forced open becomes half-open by its wait."""
        self.mode = None
        if isinstance(self.phase, Closed):
            self._close("the mode set by hand ended")

    def force(
        self,
        state: CircuitState,
        now: float,
        cause: str,
        since: float | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        """Start a period in `state`, whatever the rules say.

        Args:
            state: Which state.
            now: Seconds on the clock.
            cause: Why, for logs and listeners.
            since: When an open period began; None for now.
            wait_seconds: How long it lasts; None for what the rules say.
        """
        if state is CircuitState.CLOSED:
            self._close(cause)
        elif state is CircuitState.OPEN:
            self._open(now if since is None else since, cause, wait_seconds)
        else:
            self._half_open(cause)
        self._reschedule(now)

    def move_opening(self, since: float, now: float) -> None:
        """Have the current open period, if there is one, begin at `since`."""
        if isinstance(self.phase, Open):
            self.phase.until = since + self.phase.wait_seconds
            self._reschedule(now)

    def forget_running_calls(self) -> None:
        """Treat every running call as one of another process, after a fork."""
        running = list(self.running or ())
        if isinstance(self.phase, HalfOpen):
            running += self.phase.probes
            self.phase.probes = []
        for call in running:
            call.phase = COUNTED
        if self.running is not None:
            self.running.clear()
        totals = self.totals()
        ended = totals.successes + totals.failures
        self._outcomes_due = ended - taken(self.admissions)

    # Changing the state.

    def _open(self, since: float, cause: str, wait_seconds: float | None = None) -> None:
        if wait_seconds is None:
            opening = self.totals().openings + 1
            wait_seconds = self.backoff.wait_seconds(
                self.recovery_timeout, self._reopenings, opening
            )
        self._change(Open(since, wait_seconds, self.failures_in_a_row()), cause)

    def _half_open(self, cause: str) -> None:
        phase = HalfOpen(self.half_open_max_calls, self.success_threshold, self.failures_in_a_row())
        self._change(phase, cause)

    def _close(self, cause: str) -> None:
        disabled = self._is_disabled()
        window = None if disabled or self.failure_rate is None else self.failure_rate.window()
        threshold = _NEVER if disabled else self.failure_threshold
        self._reopenings = 0
        self._change(Closed(threshold, window, self.successes, self._short_cuts), cause)
        self._rejections_when_closed = self.rejections()

    def _change(self, phase: Phase, cause: str) -> None:
        """End the current period and start another: the only way in which the state changes."""
        before, admissions = self.phase, self.admissions
        self.phase, self.phase_memo = phase, None
        self.permits = self.admissions = EMPTY
        if isinstance(before, Closed):
            before.quiet = before.steady = False
            self._failures += before.end()
        if not isinstance(phase, Closed):
            self.refusals = endless(None) if self.refusals is EMPTY else self.refusals
        elif self._short_cuts.admissions and self.mode is None:
            self.admissions = endless(phase)
            self.permits = EMPTY if self.is_timed else self.admissions
        # Only now, because until `permits` was replaced other threads could take more.
        self._outcomes_due += taken(admissions)
        if before.state is phase.state:
            return
        change = before.state, phase.state
        counts = self.state_changes or {}
        # A new dictionary, so that another thread can go on reading the old one.
        self.state_changes = {**counts, change: counts.get(change, 0) + 1}
        wait = phase.wait_seconds if isinstance(phase, Open) else None
        rejections = self.rejections() - self._rejections_when_closed
        self._note(Transition(*change, wait, before.failures_in_a_row, cause, rejections))

    def _note(self, happening: Transition | Overdue) -> None:
        self._happenings = [*(self._happenings or ()), happening]
