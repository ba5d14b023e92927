"""A circuit with its lock: one decision at a time, and notifications outside the lock."""

from _thread import RLock
from collections.abc import Callable
from typing import Any, TypeAlias

from example_service.infra.resilience import fork
from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    Event,
    StateChanged,
    StateChangeListener,
)
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.listeners import Listeners
from example_service.infra.resilience.outage import Outage
from example_service.infra.resilience.rules import lockfree
from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine
from example_service.infra.resilience.rules.states import CircuitState, Mode
from example_service.infra.resilience.state_log import log_rejections, log_state_change

Step: TypeAlias = Callable[..., Any]


# A global is found faster than a member of an enumeration.
_OPEN = CircuitState.OPEN


class LockedCircuit:
    """One circuit and its lock: takes one step at a time, then notifies.

    Guarded calls, log and listeners always run outside the lock.

    Args:
        name: Name of the breaker.
        machine: The rules.
        listeners: The hooks to call; None for none.
        clock: Returns the current time in seconds.

    Attributes:
        machine: The rules. Callers may use its lock-free counters; see `lockfree`.
        clock: Returns the current time in seconds. Tests may replace it.
        observer: The registry, which is notified of state changes before log and listeners.
    """

    __slots__ = (
        "__weakref__",
        "_forks",
        "_listeners",
        "_mutex",
        "_name",
        "_outage",
        "_reentered",
        "clock",
        "machine",
        "observer",
    )

    def __init__(
        self,
        name: str,
        machine: CircuitStateMachine,
        listeners: Listeners | None,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self.machine = machine
        self.clock = clock
        self._listeners = listeners
        self._outage: Outage | None = None
        self.observer: StateChangeListener | None = None
        self._mutex = RLock()  # Faster than `threading.RLock()`, which calls it.
        # Steps that interrupted a decision in its own thread; None while no decision is made.
        self._reentered: list[tuple[Step, tuple[Any, ...]]] | None = None
        self._forks = fork.generation

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._name

    @property
    def mutex(self) -> RLock:
        """The lock under which the rules decide."""
        if self._forks != fork.generation:
            self._adopt_after_fork()
        return self._mutex

    def _decide(self, step: Step, *arguments: Any, may_wait: bool = True) -> Any:
        """Take one step of the rules under the lock, then notify."""
        answer, events, waiting = self._take_step(step, *arguments, may_wait=may_wait)
        self._finish(events, waiting)
        return answer

    def _take_step(
        self, step: Step, *arguments: Any, may_wait: bool = True
    ) -> tuple[Any, list[Event], list[tuple[Step, tuple[Any, ...]]]]:
        """Take one step of the rules under the lock.

        A finalizer, a weak reference's callback or a signal handler can interrupt a decision in its
        own thread and call this. The result is then None. If `may_wait`, the step is taken after
        the interrupted decision, otherwise never.

        Returns:
            The result of the step, and what `_finish` needs.
        """
        now = self.clock()
        with self.mutex:
            if self._reentered is not None:
                if may_wait:
                    self._reentered.append((step, arguments))
                return None, [], []
            self._reentered = []
            try:
                self.machine.advance(now)
                events = self._take_events(now)
                answer = step(*arguments, now)
                if isinstance(answer, CallSucceeded | CallFailed):
                    events.append(answer)
                events += self._take_events(now)
            finally:
                waiting, self._reentered = self._reentered, None
        return answer, events, waiting

    def _finish(self, events: list[Event], waiting: list[tuple[Step, tuple[Any, ...]]]) -> None:
        """Notify, then take the steps that waited. Call it outside every lock."""
        if events:
            self._publish(events)
        for step, arguments in waiting:
            self._decide(step, *arguments)

    # Reports.

    def _take_events(self, now: float) -> list[Event]:
        """The events to publish: calls that have become overdue, and state changes."""
        machine = self.machine
        reports = machine.take_reports()
        if reports is None:
            return []
        outage = self._outage or self._first_outage()
        events = [outage.event(self._name, report, machine.mode, now) for report in reports]
        if machine.phase.state is _OPEN:
            self._begin_summary(outage, now)
        return events

    def _first_outage(self) -> Outage:
        self._outage = Outage()
        return self._outage

    def _begin_summary(self, outage: Outage, now: float) -> None:
        notified = self._listeners is not None and bool(self._listeners.on_rejection)
        silent = lockfree.GIL_ENABLED and not notified and self.machine.mode is None
        outage.begin_summary(self.machine.rejections(), now, silent=silent)

    def _take_summary(self, now: float) -> int:
        """The number of refused calls to log now; 0 if the last line was less than a second ago."""
        outage = self._outage or self._first_outage()
        count = outage.rejections_to_log(self.machine.rejections(), now)
        if count:
            self._begin_summary(outage, now)
        return count

    def _refusal(
        self, state: CircuitState, retry_after: float | None, rejections: int
    ) -> CircuitOpenError:
        """Notify of a refused call, and create the error to raise."""
        if rejections:
            log_rejections(self._name, state, rejections, retry_after)
        if self._listeners is not None:
            self._listeners.notify(CallRejected(self._name, state, retry_after))
        return CircuitOpenError(self._name, state, retry_after, self._reason())

    def _reason(self) -> str | None:
        """What opened the circuit; None if nothing did."""
        mode = self.machine.mode
        if mode is not None and mode.mode is Mode.FORCED_OPEN:
            return f"forced open by hand: {mode.reason}"
        return None if self._outage is None else self._outage.reason

    def _publish(self, events: list[Event]) -> None:
        """Notify the registry, the log and the listeners."""
        for event in events:
            if isinstance(event, StateChanged):
                if (observer := self.observer) is not None:
                    observer.on_state_change(event)
                log_state_change(event)
            if self._listeners is not None:
                self._listeners.notify(event)

    def _adopt_after_fork(self) -> None:
        """Replace the lock and drop the running calls, which belong to the parent process."""
        self._forks = fork.generation
        self._mutex = RLock()
        self._reentered = None
        self.machine.forget_running_calls()
