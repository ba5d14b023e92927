"""What time does to a circuit."""

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
    is_part,
)
from example_service.infra.resilience.rules.records import Overdue


class Timetable(Circuit):
    """A circuit whose calls become overdue, whose waits end, and whose mode ends.

    No timer is needed: `advance` lets the time that has passed act. `due` says when there will be
    something to do, so that most calls need no more than one comparison.
    """

    __slots__ = ()

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
        if isinstance(phase, HalfOpen) and (probe := phase.oldest_probe()) is not None:
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
        if is_part(call):
            return
        self._outcomes_due += 1
        self._note(Overdue(at, at - call.started))
        cause = f"a probe did not end within {at - call.started:g} seconds ({parameter})"
        self._count_failure(phase, at, cause)

    def _end_mode(self) -> None:
        """Follow the rules again. A circuit that was forced open becomes half-open by its wait."""
        self.mode = None
        if isinstance(self.phase, Closed):
            self._close("the mode set by hand ended")
