"""What a breaker does with each call: asks the rules under the lock, then tells what happened.

`CircuitBreaker` offers this in every form in which Python makes a call. Here are the steps that
those forms share: take a permit, settle it with the outcome, let time act, and tell the log and
the listeners once the lock is free.
"""

import math
import time
from collections.abc import Callable
from threading import RLock, get_ident
from typing import Any, cast

from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    Event,
    StateChanged,
)
from example_service.infra.resilience.evidence import Evidence
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.guarded_block import (
    NOT_ENTERED,
    GuardedBlock,
    prepared_blocks,
)
from example_service.infra.resilience.listeners import Listeners
from example_service.infra.resilience.registry import CircuitBreakerRegistry
from example_service.infra.resilience.rejection_summary import RejectionSummary
from example_service.infra.resilience.rules.circuit_state import (
    ALL_SHORT_CUTS,
    GIL_ENABLED,
    NO_SHORT_CUTS,
    STALE_PERMIT,
    CircuitState,
    CircuitStateMachine,
    Closed,
    Mode,
    Open,
    Overdue,
    Permit,
    ShortCuts,
    TimedCall,
    Totals,
    Transition,
)
from example_service.infra.resilience.state_log import log_rejections, log_state_change

# A global is found faster than a member of an enumeration.
_OPEN = CircuitState.OPEN


class BreakerCore:
    """The part of `CircuitBreaker` that decides and tells; see there."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_evidence",
        "_expected_exception",
        "_forgotten",
        "_is_failed_result",
        "_is_failure",
        "_listeners",
        "_machine",
        "_mutex",
        "_name",
        "_registry",
        "_summary",
        "_unclaimed",
    )

    _name: str
    _clock: Callable[[], float]
    _mutex: "RLock"
    _machine: CircuitStateMachine
    _listeners: Listeners | None
    _registry: CircuitBreakerRegistry | None
    _expected_exception: type[Exception] | tuple[type[Exception], ...]
    _is_failure: Callable[[Exception], bool] | None
    _is_failed_result: Callable[[Any], bool] | None
    _evidence: Evidence | None
    _summary: RejectionSummary | None
    _unclaimed: list[TimedCall] | None
    _forgotten: Totals

    # Deciding.

    def _take_permit(self) -> Permit:
        """The permit of one call, by the short cut where there is one.

        Raises:
            CircuitOpenError: The circuit refuses.
        """
        return next(self._machine.permits, None) or self._admit()

    def _admit(self) -> Permit:
        """The permit of one call.

        Raises:
            CircuitOpenError: The circuit refuses.
        """
        now = self._clock()
        machine = self._machine
        phase = machine.phase
        if (
            isinstance(phase, Open)
            and now < phase.until
            and (summary := self._summary) is not None
            and now < summary.silent_until
        ):
            next(machine.refusals)
            raise CircuitOpenError(self._name, _OPEN, phase.until - now, self._reason())
        with self._mutex:
            permit = machine.try_acquire(now)
            events = self._take_events(now)
            state, retry_after = machine.phase.state, machine.retry_after(now)
            rejections = 0 if permit is not None else self._take_summary(now)
        self._publish(events)
        if permit is not None:
            return permit
        if rejections:
            log_rejections(self._name, state, rejections, retry_after)
        if self._listeners is not None:
            self._listeners.tell(CallRejected(self._name, state, retry_after))
        raise CircuitOpenError(self._name, state, retry_after, self._reason())

    def _enter_block(self) -> None:
        """Admit a block whose permit the shared short cut does not cover.

        Raises:
            CircuitOpenError: The circuit refuses.
        """
        shared_leave = self._machine.phase_memo
        if prepared_blocks:
            block = prepared_blocks.pop(get_ident(), None)
            permit = self._take_permit()
        else:
            block = None
            permit = self._admit()
        if isinstance(permit, Closed):
            if block is not None:
                block.enter(self, permit)
            return
        with self._mutex:
            if (
                block is None
                and shared_leave is not None
                and shared_leave.__self__.permit is NOT_ENTERED
            ):
                block = shared_leave.__self__
            if block is None or not block.enter(self, permit):
                self._unclaimed = [*(self._unclaimed or ()), permit]

    def _settle_block(self, block: GuardedBlock | None, exc: BaseException | None) -> None:
        """Account for a block that ended; without a permit it takes an unclaimed one."""
        with self._mutex:
            permit = block.take_permit() if block is not None else None
            if permit is None and self._unclaimed:
                permit = self._unclaimed[-1]
                self._unclaimed = self._unclaimed[:-1] or None
            if permit is None:
                phase = self._machine.phase
                permit = phase if isinstance(phase, Closed) else STALE_PERMIT
        if exc is None:
            self._succeed(permit)
        else:
            self._settle_error(permit, exc)

    def _settle_success(self, permit: Permit, result: object) -> None:
        """Account for a call that returned."""
        if self._is_failed_result is not None:
            try:
                failed = bool(self._is_failed_result(result))
            except BaseException:
                self._release(permit)
                raise
            if failed:
                self._fail(permit, None)
                return
        self._succeed(permit)

    def _succeed(self, permit: Permit) -> None:
        now = self._clock()
        told = self._listeners
        with self._mutex:
            self._machine.advance(now)
            events = self._take_events(now)
            if self._machine.record_success(permit, now) and told is not None:
                events.append(CallSucceeded(self._name, _seconds_of(permit, now)))
            events += self._take_events(now)
        self._publish(events)

    def _settle_error(self, permit: Permit, error: BaseException) -> None:
        """Account for a call that raised; the caller lets the exception go on."""
        failed = isinstance(error, self._expected_exception)
        if failed and next(permit.allowance, None):
            permit.quiet = False
            evidence = self._evidence or self._first_evidence()
            evidence.failed_at = time.time()
            # Failures mostly repeat themselves, and then there is nothing to remember anew.
            if evidence.last_kind != (kind := type(error).__name__):
                evidence.remember(kind)
            return
        if failed and self._is_failure is not None:
            try:
                failed = bool(self._is_failure(cast("Exception", error)))
            except BaseException:
                self._release(permit)
                raise
        if failed:
            self._fail(permit, type(error).__name__)
        else:
            self._release(permit)

    def _fail(self, permit: Permit, error_type: str | None) -> None:
        now = self._clock()
        told = self._listeners
        with self._mutex:
            self._machine.advance(now)
            events = self._take_events(now)
            if self._machine.record_failure(permit, now):
                self._remember(time.time(), error_type or "failed result")
                if told is not None:
                    events.append(CallFailed(self._name, error_type, _seconds_of(permit, now)))
            events += self._take_events(now)
        self._publish(events)

    def _release(self, permit: Permit) -> None:
        now = self._clock()
        with self._mutex:
            self._machine.release(permit, now)
            events = self._take_events(now)
        self._publish(events)

    def _look(self) -> None:
        """Let the time that has passed act on the state."""
        if self._machine.is_timeless():
            return
        now = self._clock()
        with self._mutex:
            self._machine.advance(now)
            events = self._take_events(now)
        self._publish(events)

    # Telling.

    def _take_events(self, now: float) -> list[Event]:
        """What to publish: calls that have become overdue, and changes of state.

        Requires the lock.
        """
        happenings = self._machine.take_happenings()
        return [] if happenings is None else [self._event(one, now) for one in happenings]

    def _event(self, happening: Transition | Overdue, now: float) -> Event:
        """Requires the lock."""
        if isinstance(happening, Transition):
            return self._state_changed(happening, now)
        self._remember(time.time() - (now - happening.deadline), "overdue call")
        return CallFailed(self._name, None, happening.seconds)

    def _state_changed(self, transition: Transition, now: float) -> StateChanged:
        """Requires the lock."""
        reason, wait = transition.cause, transition.wait_seconds
        if transition.to_state is CircuitState.OPEN:
            evidence, mode = self._evidence or self._first_evidence(), self._machine.mode
            if mode is not None and mode.mode is Mode.FORCED_OPEN:
                evidence.reason = reason
            else:
                reason = evidence.open_because(reason)
            self._begin_summary(now)
        elif transition.to_state is CircuitState.CLOSED and self._evidence is not None:
            self._evidence.forget_outage()
        return StateChanged(
            breaker_name=self._name,
            from_state=transition.from_state,
            to_state=transition.to_state,
            wait_seconds=None if wait == math.inf else wait,
            failure_count=transition.failure_count,
            rejections=transition.rejections,
            reason=reason,
        )

    def _first_evidence(self) -> Evidence:
        self._evidence = Evidence()
        return self._evidence

    def _remember(self, failed_at: float, error_type: str) -> None:
        evidence = self._evidence or self._first_evidence()
        evidence.failed_at = max(failed_at, evidence.failed_at or failed_at)
        evidence.remember(error_type)

    def _reason(self) -> str | None:
        """What opened the circuit; None where nothing did."""
        mode = self._machine.mode
        if mode is not None and mode.mode is Mode.FORCED_OPEN:
            return f"forced open by hand: {mode.reason}"
        return None if self._evidence is None else self._evidence.reason

    def _publish(self, events: list[Event]) -> None:
        """Tell the log and the listeners, outside the lock."""
        for event in events:
            if isinstance(event, StateChanged):
                if (registry := self._registry) is not None:
                    registry.keep(event)
                log_state_change(event)
            if self._listeners is not None:
                self._listeners.tell(event)

    def _begin_summary(self, now: float) -> None:
        """Count refused calls for the next line about them. Requires the lock."""
        if self._summary is None:
            self._summary = RejectionSummary()
        heard = self._listeners is not None and bool(self._listeners.on_rejection)
        silent = GIL_ENABLED and not heard and self._machine.mode is None
        self._summary.begin(self._machine.rejections(), now, silent=silent)

    def _take_summary(self, now: float) -> int:
        """Refused calls to log now, or 0 while the last line is recent. Requires the lock."""
        if self._summary is not None and now < self._summary.due:
            return 0
        count = self._summary.since_last(self._machine.rejections()) if self._summary else 1
        self._begin_summary(now)
        return count


def short_cuts(
    is_failure: object,
    is_failed_result: object,
    slow_call_duration: object,
    failure_rate: object,
    told: Listeners | None,
) -> ShortCuts:
    """The steps that nothing but a count has to hear of."""
    if not GIL_ENABLED:
        return NO_SHORT_CUTS
    hears_calls = told is not None and bool(told.on_success or told.on_failure)
    if not (is_failure or is_failed_result or slow_call_duration or failure_rate or hears_calls):
        return ALL_SHORT_CUTS
    heard = bool(hears_calls or failure_rate)
    return ShortCuts(
        admissions=not (hears_calls or slow_call_duration),
        successes=not (heard or is_failed_result),
        failures=not (heard or is_failure),
    )


def _seconds_of(permit: Permit, now: float) -> float:
    """How long the permit's call has been running; 0.0 where calls are not timed."""
    return 0.0 if permit.started is None else now - permit.started
