"""What happens to a circuit as time passes: waits and modes end, calls become overdue."""

from collections.abc import Callable
from functools import partial
from math import inf
from operator import itemgetter

from example_service.infra.resilience.rules.circuit import Circuit
from example_service.infra.resilience.rules.phases import (
    COUNTED,
    Closed,
    HalfOpen,
    Open,
    TimedCall,
    is_part_of_another,
)
from example_service.infra.resilience.rules.records import Overdue


class CircuitWithDeadlines(Circuit):
    """A circuit on which `advance` applies everything that has become due.

    No timer runs. `due` is the time before which `advance` has nothing to do, so that most calls
    need only one comparison.
    """

    __slots__ = ()

    def advance(self, now: float) -> None:
        """Process everything that was due by `now`, in the order in which it was due.

        Modes end, calls past their deadline count as failures at that deadline, and an open circuit
        whose wait is over becomes half-open. One event can lead to the next: a probe's deadline
        re-opens the circuit, and by now that wait may be over, too.
        """
        if now < self.due:
            return
        while (due := self._next_due()) is not None and now >= due[0]:
            due[1]()
        self._reschedule(now)

    def _next_due(self) -> tuple[float, Callable[[], None]] | None:
        """When the next thing is due, and the function to call then; None if nothing is."""
        due: list[tuple[float, Callable[[], None]]] = []
        phase = self.phase
        if self.slow_call_duration is not None and (call := self._oldest_running()) is not None:
            slow_at = call.started + self.slow_call_duration
            act = partial(self._count_overdue, call, slow_at, "slow_call_duration")
            due.append((slow_at, act))
        if isinstance(phase, HalfOpen) and (probe := phase.oldest_probe()) is not None:
            deadline = probe.started + self.probe_timeout
            act = partial(self._count_overdue, probe, deadline, "probe_timeout")
            due.append((deadline, act))
        if self.mode is not None and self.mode.until is not None:
            due.append((self.mode.until, self._end_mode))
        if isinstance(phase, Open) and phase.until < inf and self._may_probe():
            due.append((phase.until, partial(self._half_open, "the open wait is over")))
        if isinstance(phase, Closed) and phase.lock_free_until < inf:
            due.append((phase.lock_free_until, phase.require_lock))
        # If several are due at the same time, the first in this list wins.
        return min(due, key=itemgetter(0), default=None)

    def _oldest_running(self) -> TimedCall | None:
        while self.running:
            try:
                return next(iter(self.running))
            except (RuntimeError, StopIteration):
                continue  # Another thread has added or removed a call.
        return None

    def _may_probe(self) -> bool:
        return self.gate is None or self.gate.can_probe()

    def _reschedule(self, now: float) -> None:
        """Set `due`, also early enough for a slow call that starts after `now`."""
        due = self._next_due()
        self.due = inf if due is None else due[0]
        if self.gate is not None and isinstance(self.phase, Open):
            self.due = min(self.due, self.phase.until)  # Then the gate may open at any time.
        if self.slow_call_duration is not None:
            self.due = min(self.due, now + self.slow_call_duration)

    def _count_overdue(self, call: TimedCall, at: float, parameter: str) -> None:
        """Count a running call as a failure, unless another thread has just ended it."""
        if self.running is not None and self.running.pop(call, None) is None:
            return
        phase = self._leave(call)
        call.phase = COUNTED
        if is_part_of_another(call):
            return
        self._expected_outcomes += 1
        self._report(Overdue(at, at - call.started))
        cause = f"a probe did not end within {at - call.started:g} seconds ({parameter})"
        self._count_failure(phase, at, cause)

    def _end_mode(self) -> None:
        """End the mode. A forced-open circuit then becomes half-open, because its wait is over."""
        self.mode = None
        if isinstance(self.phase, Closed):
            self._close()
