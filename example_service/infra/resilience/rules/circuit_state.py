"""The rules of a circuit: synchronous code without a clock, a lock, or I/O.

    CLOSED      failure_threshold failures in a row  ->  OPEN
    CLOSED      too large a share of failures        ->  OPEN
    OPEN        the wait is over                     ->  HALF_OPEN
    HALF_OPEN   success_threshold successes          ->  CLOSED
    HALF_OPEN   a failure, or a probe that hangs     ->  OPEN, for longer

The rules are in four files: `phases` has what happens within one period in a state, `circuit` how
the next period starts, `deadlines` what happens as time passes, and this module what calls and
operators do. Every method takes the current time as `now`, in seconds on a monotonic clock.

A call remembers the period that admitted it. Once that period is over, its outcome is late: it
counts in the totals and changes nothing else (sony/gobreaker calls a period a generation).
"""

from math import inf

from example_service.infra.resilience.rules.deadlines import CircuitWithDeadlines
from example_service.infra.resilience.rules.lockfree import taken
from example_service.infra.resilience.rules.phases import (
    COUNTED,
    STALE,
    Closed,
    HalfOpen,
    NestedCall,
    Open,
    Permit,
    TimedCall,
    is_part_of_another,
    timed_call,
)
from example_service.infra.resilience.rules.records import ManualMode
from example_service.infra.resilience.rules.states import CircuitState, Mode


class CircuitStateMachine(CircuitWithDeadlines):
    """One circuit, with the parameters of `Circuit`. The breaker calls its methods under a lock.

    A caller may advance some counters without the lock (see `lockfree`):

    - `permits`, which yields the current `Closed` period as the permit of a call that is not timed,
    - `successes`, `refusals`, and the `lock_free_failures` of a permit,
    - before the time `due`, `admissions`, which yields the current `Closed` period for a timed
      call. The caller adds that call to `running` and removes it when it ends. If the call becomes
      overdue first, `advance` removes it. The one that removes it counts the outcome.
    """

    __slots__ = ()

    # Calls.

    def _gate_admits(self, phase: Closed | HalfOpen) -> bool:
        """Whether the gate, if there is one, admits a call. It only limits probes."""
        if self.gate is None or isinstance(phase, Closed) or self.gate.take_probe():
            return True
        self.gate.request_probe()
        return False

    def _report_to_gate(self, permit: Permit, *, succeeded: bool | None) -> None:
        """Report the end of a probe to the gate, unless it was part of another probe."""
        if self.gate is not None and not isinstance(permit, NestedCall):
            self.gate.probe_ended(succeeded=succeeded)

    def try_acquire(self, now: float, outer: TimedCall | None = None) -> Permit | None:
        """Ask whether one call may run now. A refusal is counted.

        Args:
            now: Seconds on the clock.
            outer: The call inside which this one is made, if any. A call inside a running probe
                needs no probe slot of its own.

        Returns:
            The permit to hand back with the outcome, or None if the circuit refuses.
        """
        self.advance(now)
        phase = self.phase
        if self.gate is not None and isinstance(phase, Open) and now >= phase.until:
            self.gate.request_probe()
        if outer is not None and outer.phase is not phase:
            outer = None
        is_in_probe = outer is not None and isinstance(phase, HalfOpen)
        if not isinstance(phase, Open) and (
            is_in_probe or (phase.has_room() and self._gate_admits(phase))
        ):
            permit = self._permit(phase, now, outer)
        elif self.mode is not None and self.mode.mode is Mode.SHADOW:
            self.mode.would_have_rejected += 1
            self._shadow_rejections += 1
            permit = self._start(STALE, now)
        else:
            next(self.refusals)
            return None
        self._expected_outcomes += 1
        self._reschedule(now)
        return permit

    def count_admission(self, now: float) -> None:  # noqa: ARG002
        """Count a call that runs without having asked for a permit."""
        self._expected_outcomes += 1

    def count_rejection(self, now: float) -> None:  # noqa: ARG002
        """Count a call that was refused without asking for a permit."""
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
            self._report_to_gate(permit, succeeded=True)
            if cause := phase.succeed():
                self._close(cause)
        self._reschedule(now)
        return True

    def record_failure(self, permit: Permit, now: float, open_for: float | None = None) -> bool:
        """Hand a permit back: its call failed. Returns whether that was counted.

        Args:
            permit: What `try_acquire` returned.
            now: Seconds on the clock.
            open_for: Seconds that the dependency asked callers to wait: the circuit opens at once,
                for that long. None if it did not ask.
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
                self._report_to_gate(permit, succeeded=None)
            self._expected_outcomes -= 1
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
        if phase is COUNTED or is_part_of_another(permit):
            self._expected_outcomes -= 1
            return None
        return phase

    # Operators.

    def follow(
        self, state: CircuitState, cause: str, wait_seconds: float, reopenings: int, now: float
    ) -> None:
        """Open or close as the other processes do. Modes other than shadow take precedence.

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
        """Move the start of the current open period to `since`; do nothing unless open."""
        if isinstance(self.phase, Open):
            self.phase.until = since + self.phase.wait_seconds
            self._reschedule(now)

    def forget_running_calls(self) -> None:
        """Drop the calls in flight, which belong to the parent process after a fork."""
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
        self._expected_outcomes = ended - taken(self.admissions)
