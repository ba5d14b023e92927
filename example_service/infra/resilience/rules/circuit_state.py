"""The rules of a circuit: synchronous code without a clock, a lock, or I/O.

    CLOSED      failure_threshold failures in a row  ->  OPEN
    CLOSED      too large a share of failures        ->  OPEN
    OPEN        the wait is over                     ->  HALF_OPEN
    HALF_OPEN   success_threshold successes          ->  CLOSED
    HALF_OPEN   a failure, or a probe that hangs     ->  OPEN, for longer

`phases` says what happens within one period in a state, `circuit` how one period follows another,
`timetable` what time does, and this module what calls and operators do. Every method takes the
current time as `now`, in seconds on a clock of which only differences matter.

A call carries the period that admitted it. Once that period is over the outcome is late: it counts
in the totals and changes nothing else (sony/gobreaker calls a period a generation).
"""

from math import inf

from example_service.infra.resilience.rules.lockfree import EMPTY, endless, taken
from example_service.infra.resilience.rules.phases import (
    COUNTED,
    STALE,
    Closed,
    HalfOpen,
    NestedCall,
    Open,
    Permit,
    TimedCall,
    is_part,
    timed_call,
)
from example_service.infra.resilience.rules.records import ManualMode
from example_service.infra.resilience.rules.states import CircuitState, Mode
from example_service.infra.resilience.rules.timetable import Timetable


class CircuitStateMachine(Timetable):
    """One circuit, with the parameters of `Circuit`. The breaker calls its methods under a lock.

    Without the lock, a caller may advance `permits`, which yields the current `Closed` period as
    the permit of a call that is not timed; `successes`; `refusals`; and the `allowance` of a
    permit. See `lockfree`. Before the moment `due`, time changes nothing. Until then a caller may
    also advance `admissions`, which yields the current `Closed` period for a timed call, add that
    call to `running`, and remove it there at its end: the one that removes it, the caller or time,
    counts its outcome.

    `phase_memo` keeps what the breaker wants to remember until the period ends. `gate` is asked
    before each probe, if there is one; a closed circuit never asks.
    """

    __slots__ = ()

    # Calls.

    def _has_right(self, phase: Closed | HalfOpen) -> bool:
        """Whether the gate, if there is one, lets a call of this period run."""
        if self.gate is None or isinstance(phase, Closed) or self.gate.take():
            return True
        self.gate.ask()
        return False

    def _end_at_gate(self, permit: Permit, *, succeeded: bool | None) -> None:
        """Report the end of a probe to the gate, which a call inside a probe has not passed."""
        if self.gate is not None and not isinstance(permit, NestedCall):
            self.gate.ended(succeeded=succeeded)

    def try_acquire(self, now: float, outer: TimedCall | None = None) -> Permit | None:
        """Ask whether one call may run now. A refusal is counted.

        Args:
            now: Seconds on the clock.
            outer: The call of this period inside which it is made, if it is known. Inside a
                probe that is still running it needs no place.

        Returns:
            The permit to hand back with the outcome, or None if the circuit refuses.
        """
        self.advance(now)
        phase = self.phase
        if self.gate is not None and isinstance(phase, Open) and now >= phase.until:
            self.gate.ask()
        if outer is not None and outer.phase is not phase:
            outer = None
        is_in_probe = outer is not None and isinstance(phase, HalfOpen)
        if not isinstance(phase, Open) and (
            is_in_probe or (phase.has_room() and self._has_right(phase))
        ):
            permit = self._permit(phase, now, outer)
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
        elif isinstance(phase, Closed):
            if cause := phase.succeed(now):
                self._open(now, cause)
        else:
            self._end_at_gate(permit, succeeded=True)
            if cause := phase.succeed():
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
            if isinstance(phase, HalfOpen) and phase is self.phase:
                self._end_at_gate(permit, succeeded=None)
            self._outcomes_due -= 1
            self._reschedule(now)

    def _permit(self, phase: Closed | HalfOpen, now: float, outer: TimedCall | None) -> Permit:
        if isinstance(phase, Closed) and not self.is_timed:
            return phase
        call = self._start(phase, now, outer)
        if isinstance(phase, HalfOpen):
            phase.probes.append(call)
        return call

    def _start(
        self, phase: Closed | HalfOpen, now: float, outer: TimedCall | None = None
    ) -> TimedCall:
        call = timed_call(phase, now, outer)
        if self.running is not None:
            self.running[call] = now
        return call

    def _hand_back(self, permit: Permit, now: float) -> Closed | HalfOpen | None:
        """End the permit's call. Returns its period, or None if it was counted already."""
        self.advance(now)
        if isinstance(permit, Closed):
            return permit
        if self.running is not None:
            self.running.pop(permit, None)
        phase = self._leave(permit)
        if phase is COUNTED or is_part(permit):
            self._outcomes_due -= 1
            return None
        return phase

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
            self._open(now, cause, wait_seconds, reopenings, "fleet")
        elif not isinstance(self.phase, Closed):
            self._close(cause, "fleet")
        self._reschedule(now)

    def reset(self, now: float) -> None:
        """Close; forget failures in a row, failed recoveries and the mode."""
        self.mode = None
        self._close("reset by hand", "operator")
        self.totals_at_reset = self.totals()
        self._reschedule(now)

    def set_mode(self, mode: Mode, reason: str, now: float, until: float | None) -> ManualMode:
        """Override the rules until `until`, or until a reset."""
        before, self.mode = self.mode, ManualMode(mode, reason, until)
        if mode is Mode.FORCED_OPEN:
            wait = inf if until is None else until - now
            cause = f"forced open by hand: {reason}"
            phase = Open(now, wait, self.failures_in_a_row(), self.reopenings)
            self._change(phase, cause, "operator")
        elif mode is Mode.DISABLED:
            self._close(f"disabled by hand: {reason}", "operator")
        elif before is not None and before.mode is Mode.SHADOW:
            self.mode.would_have_rejected = before.would_have_rejected
        elif before is not None or isinstance(self.phase, Closed):
            self._close(f"shadowed by hand: {reason}", "operator")
        self._reschedule(now)
        return self.mode

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
