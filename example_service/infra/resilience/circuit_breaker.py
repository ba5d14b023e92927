"""The circuit breaker: guards a call in every form in which Python makes one.

`circuit_state` holds the rules. This shell reads the clock, takes the lock around each decision and
around nothing else, and tells the log and the listeners once the lock is free. The guarded call
always runs outside the lock.
"""

import inspect
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from threading import RLock, get_ident
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, overload

from example_service.infra.resilience.backoff import Backoff
from example_service.infra.resilience.circuit_state import (
    ALL_SHORT_CUTS,
    GIL_ENABLED,
    NO_SHORT_CUTS,
    NO_TOTALS,
    STALE_PERMIT,
    CircuitState,
    CircuitStateMachine,
    Closed,
    HalfOpen,
    ManualMode,
    Mode,
    Open,
    Overdue,
    Permit,
    ShortCuts,
    TimedCall,
    Transition,
)
from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitListener,
    Event,
    StateChanged,
)
from example_service.infra.resilience.evidence import Evidence
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.failure_rate import FailureRate
from example_service.infra.resilience.guarded_block import (
    BlockExit,
    BlockExitSync,
    GuardedBlock,
    prepared_blocks,
)
from example_service.infra.resilience.guarded_function import guarded
from example_service.infra.resilience.listeners import Listeners
from example_service.infra.resilience.registry import (
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.rejection_summary import RejectionSummary
from example_service.infra.resilience.state_lock import StateLock
from example_service.infra.resilience.state_log import log_mode, log_rejections, log_state_change
from example_service.infra.resilience.validation import (
    callable_error,
    count_error,
    exception_types_error,
    instance_error,
    name_error,
    number_error,
)

P = ParamSpec("P")
R = TypeVar("R")

# A global is found faster than a member of an enumeration.
_OPEN = CircuitState.OPEN


class CircuitBreaker:
    """Stops calling a dependency that fails, and finds out by itself when it works again.

    Use it as a decorator (`@breaker.protected`, or `@breaker`), as a block (`async with breaker:`
    or `with breaker:`), or for one call (`await breaker.call(func, ...)`, `breaker.call_sync`).
    One breaker, made at import time, serves any number of tasks, event loops and threads.

    A call ends as a success, as a failure, or as neither. Neither is an exception outside
    `expected_exception` or refused by `is_failure`, any exception that is no `Exception`, and
    cancellation: it changes no counter and no state. The guarded call's own exception always
    passes through unchanged.

    Args:
        name: What the breaker is called in logs, metrics and errors; not empty.
        failure_threshold: Failures in a row that open the circuit; at least 1.
        recovery_timeout: Seconds open before a probe is admitted, the first time; above 0.
        success_threshold: Successes in half-open state that close the circuit; at least 1.
        half_open_max_calls: Calls at once in half-open state; at least 1. Others are refused.
        expected_exception: The type, or tuple of types, of exceptions that count as failures;
            subclasses of `Exception`.
        is_failure: Asked about an exception of those types; False makes it count as neither.
        is_failed_result: Asked about a returned value; True makes it count as a failure.
        slow_call_duration: Seconds after which a call that still runs counts as one failure, at
            that moment and whatever it does later; None for no such rule.
        failure_rate: The share of failures among recent calls that opens the circuit, beside
            the rule of failures in a row; None for no such rule.
        backoff: How the open wait grows with each failed recovery.
        probe_timeout: Seconds after which a probe that still runs counts as a failure, so that a
            hanging one cannot keep the circuit half-open; None means `recovery_timeout`.
        listeners: Objects that are told what happens; see `events`.
        clock: Where "now" comes from: returns seconds that never go back.
        registry: Where the breaker shows up, held weakly; None keeps it out of every registry.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range.
    """

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

    def __init__(
        self,
        name: str,
        *,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        success_threshold: int = 2,
        half_open_max_calls: int = 3,
        expected_exception: type[Exception] | tuple[type[Exception], ...] = Exception,
        is_failure: Callable[[Exception], bool] | None = None,
        is_failed_result: Callable[[Any], bool] | None = None,
        slow_call_duration: float | None = None,
        failure_rate: FailureRate | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008
        probe_timeout: float | None = None,
        listeners: Iterable[CircuitListener] = (),
        clock: Callable[[], float] = time.monotonic,
        registry: CircuitBreakerRegistry | None = circuit_breaker_registry,
    ) -> None:
        if probe_timeout is None:
            probe_timeout = recovery_timeout
        if error := (
            name_error("name", name)
            or count_error("failure_threshold", failure_threshold)
            or number_error("recovery_timeout", recovery_timeout)
            or count_error("success_threshold", success_threshold)
            or count_error("half_open_max_calls", half_open_max_calls)
            or number_error("probe_timeout", probe_timeout)
            or exception_types_error("expected_exception", expected_exception)
            or (is_failure is not None and callable_error("is_failure", is_failure))
            or (
                is_failed_result is not None
                and callable_error("is_failed_result", is_failed_result)
            )
            or (
                slow_call_duration is not None
                and number_error("slow_call_duration", slow_call_duration)
            )
            or (
                failure_rate is not None
                and instance_error("failure_rate", failure_rate, FailureRate)
            )
            or instance_error("backoff", backoff, Backoff)
            or callable_error("clock", clock)
            or (
                registry is not None
                and instance_error("registry", registry, CircuitBreakerRegistry)
            )
        ):
            raise error
        self._name = name
        self._expected_exception = expected_exception
        self._is_failure = is_failure
        self._is_failed_result = is_failed_result
        told = Listeners(listeners) if listeners != () else None
        self._listeners = told
        self._clock = clock
        # By position: keyword arguments would take a tenth of the whole construction.
        self._machine = CircuitStateMachine(
            failure_threshold,
            recovery_timeout,
            success_threshold,
            half_open_max_calls,
            probe_timeout,
            backoff,
            failure_rate,
            slow_call_duration,
            _short_cuts(is_failure, is_failed_result, slow_call_duration, failure_rate, told),
        )
        self._mutex = RLock()
        self._evidence: Evidence | None = None
        self._summary: RejectionSummary | None = None
        self._unclaimed: list[TimedCall] | None = None
        self._forgotten = NO_TOTALS
        # Where the registry keeps the last changes of state; the registry sets it.
        self._registry: CircuitBreakerRegistry | None = None
        if registry is not None:
            registry.watch(self)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self._name!r} {self._machine.phase.state.value}>"

    # Ways to call.

    def protected(self, func: Callable[P, R]) -> Callable[P, R]:
        """Guard every call of a function; for use as a decorator.

        Args:
            func: A coroutine function, a plain function, an async generator function or a
                generator function. A coroutine that a plain function returns asks once more when
                it is awaited. A generator asks when its first item is asked for, holds its permit
                until it ends, and succeeds when it is exhausted; that its consumer closes it
                early counts as neither success nor failure.

        Returns:
            A function of the same kind, signature and metadata.

        Raises:
            TypeError: `func` is not callable.
        """
        return guarded(self, func)

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        """`@breaker` is `@breaker.protected`."""
        return self.protected(func)

    @overload
    def call(
        self, func: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def call(
        self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    async def call(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function under guard, and await what it returns if that can be awaited.

        Args:
            func: A coroutine function, or a plain function that returns an awaitable or a value.
            args: Passed on to it.
            kwargs: Passed on to it.

        Raises:
            CircuitOpenError: The circuit refused; `func` was not called.
        """
        machine = self._machine
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = self._admit()
        try:
            result = func(*args, **kwargs)
            if result.__class__ is CoroutineType or inspect.isawaitable(result):
                result = await result
        except BaseException as error:
            self._settle_error(permit, error)
            raise
        if permit.quiet:
            next(machine.successes)
        else:
            self._settle_success(permit, result)
        return result

    def call_sync(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a plain function under guard.

        Raises:
            CircuitOpenError: The circuit refused; `func` was not called.
        """
        machine = self._machine
        permit: Permit | None = next(machine.permits, None)
        if permit is None:
            permit = self._admit()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self._settle_error(permit, error)
            raise
        if permit.quiet:
            next(machine.successes)
        else:
            self._settle_success(permit, result)
        return result

    async def __aenter__(self) -> Self:
        """Ask to run the block.

        Raises:
            CircuitOpenError: The circuit refused; the block does not run.
        """
        if prepared_blocks or next(self._machine.permits, None) is None:
            self._enter_block()
        return self

    def __enter__(self) -> Self:
        """Ask to run the block.

        Raises:
            CircuitOpenError: The circuit refused; the block does not run.
        """
        if prepared_blocks or next(self._machine.permits, None) is None:
            self._enter_block()
        return self

    if TYPE_CHECKING:

        async def __aexit__(
            self,
            exc_type: type[BaseException] | None,
            exc: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...

        def __exit__(
            self,
            exc_type: type[BaseException] | None,
            exc: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...
    else:
        __aexit__ = BlockExit()
        __exit__ = BlockExitSync()

    # What it shows.

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._name

    @property
    def state(self) -> CircuitState:
        """The state now: an open circuit whose wait is over shows as half-open."""
        self._look()
        return self._machine.phase.state

    @property
    def is_closed(self) -> bool:
        """Whether calls are let through."""
        return self.state is CircuitState.CLOSED

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self.state is CircuitState.OPEN

    @property
    def is_half_open(self) -> bool:
        """Whether only probes are let through."""
        return self.state is CircuitState.HALF_OPEN

    @property
    def total_failures(self) -> int:
        """Failures since construction or the last `reset`."""
        self._look()
        with self._mutex:
            return self._machine.totals().failures - self._forgotten.failures

    @property
    def total_successes(self) -> int:
        """Successes since construction or the last `reset`."""
        self._look()
        return self._machine.totals().successes - self._forgotten.successes

    @property
    def total_rejections(self) -> int:
        """Refused calls since construction or the last `reset`."""
        return self._machine.rejections() - self._forgotten.rejections

    @property
    def in_flight(self) -> int:
        """Calls admitted that have not ended."""
        with self._mutex:
            return self._machine.in_flight()

    @property
    def failure_threshold(self) -> int:
        """Failures in a row that open the circuit."""
        return self._machine.failure_threshold

    @property
    def recovery_timeout(self) -> float:
        """Seconds open before a probe is admitted, the first time."""
        return self._machine.recovery_timeout

    @property
    def success_threshold(self) -> int:
        """Successes in half-open state that close the circuit."""
        return self._machine.success_threshold

    @property
    def half_open_max_calls(self) -> int:
        """Calls at once in half-open state."""
        return self._machine.half_open_max_calls

    @property
    def probe_timeout(self) -> float:
        """Seconds after which a probe that still runs counts as a failure."""
        return self._machine.probe_timeout

    @property
    def backoff(self) -> Backoff:
        """How the open wait grows with each failed recovery."""
        return cast("Backoff", self._machine.wait_rule)

    @property
    def expected_exception(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The type, or types, of exceptions that count as failures."""
        return self._expected_exception

    @property
    def is_failure(self) -> Callable[[Exception], bool] | None:
        """The predicate that narrows `expected_exception`."""
        return self._is_failure

    @property
    def is_failed_result(self) -> Callable[[Any], bool] | None:
        """The predicate for returned values that count as failures."""
        return self._is_failed_result

    @property
    def slow_call_duration(self) -> float | None:
        """Seconds after which a call that still runs counts as failed."""
        return self._machine.slow_call_duration

    @property
    def failure_rate(self) -> FailureRate | None:
        """The share of failures that opens the circuit."""
        return cast("FailureRate | None", self._machine.rate_rule)

    @property
    def listeners(self) -> tuple[CircuitListener, ...]:
        """The objects that are told what happens."""
        return self._listeners.given if self._listeners is not None else ()

    @property
    def registry(self) -> CircuitBreakerRegistry | None:
        """Where the breaker shows up; None for nowhere."""
        return self._registry

    @property
    def clock(self) -> Callable[[], float]:
        """Where "now" comes from."""
        return self._clock

    def get_metrics(self) -> dict[str, Any]:
        """What there is to know now, as values that JSON can hold.

        Returns:
            A dictionary with these keys:

            - `state`: "closed", "open" or "half_open".
            - `failure_count`: failures in a row.
            - `success_count`: successes so far while half-open, else 0.
            - `total_failures`, `total_successes`, `total_rejections`: since construction or the
              last `reset`.
            - `last_failure_time`: ISO 8601 in UTC, or None.
            - `failure_rate`: failures / (failures + successes), 0.0 when there are neither.
            - `retry_after`: seconds until a call may be admitted, 0.0 unless open; None when
              forced open without an end.
            - `opened_count`: openings since construction or the last `reset`.
            - `in_flight`: calls admitted that have not ended.
            - `reason`, only while not closed: what opened the circuit.
            - `mode`, only while one is set by hand: a dictionary of `name` ("forced_open",
              "disabled" or "shadow"), `reason`, `ends_in` (seconds, or None) and
              `would_have_rejected` (calls that shadow mode let through).
        """
        now = self._clock()
        with self._mutex:
            self._machine.advance(now)
            events = self._take_events(now)
            machine, phase = self._machine, self._machine.phase
            totals, forgotten = machine.totals(), self._forgotten
            failure_count, in_flight = machine.failures_in_a_row(), machine.in_flight()
            retry_after = machine.retry_after(now)
            last_failure, reason, mode = self._last_failure_time, self._reason(), machine.mode
        self._publish(events)
        failures = totals.failures - forgotten.failures
        successes = totals.successes - forgotten.successes
        metrics: dict[str, Any] = {
            "state": phase.state.value,
            "failure_count": failure_count,
            "success_count": phase.successes if isinstance(phase, HalfOpen) else 0,
            "total_failures": failures,
            "total_successes": successes,
            "total_rejections": totals.rejections - forgotten.rejections,
            "last_failure_time": last_failure.isoformat() if last_failure else None,
            "failure_rate": failures / (failures + successes) if failures else 0.0,
            "retry_after": retry_after,
            "opened_count": totals.openings - forgotten.openings,
            "in_flight": in_flight,
        }
        if not isinstance(phase, Closed):
            metrics["reason"] = reason
        if mode is not None:
            metrics["mode"] = {
                "name": mode.mode.value,
                "reason": mode.reason,
                "ends_in": None if mode.until is None else mode.until - now,
                "would_have_rejected": mode.would_have_rejected,
            }
        return metrics

    # By hand.

    async def reset(self) -> None:
        """Close the circuit and forget counts, totals, backoff, the last failure and any mode.

        Calls in flight become stale: their outcomes no longer act on the state. What Prometheus
        is told never goes down.
        """
        now = self._clock()
        with self._mutex:
            self._machine.advance(now)
            events = self._take_events(now)
            self._machine.reset()
            self._forgotten = self._machine.totals()
            self._evidence = None
            events += self._take_events(now)
        self._publish(events)

    def force_open(self, reason: str, seconds: float | None = None) -> None:
        """Refuse every call, whatever the dependency does.

        Args:
            reason: Why, for logs, metrics and errors; not empty.
            seconds: How long; afterwards the circuit is half-open. None means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self._set_mode(
            reason, seconds, lambda now, until: self._machine.force_open(reason, now, until)
        )

    def disable(self, reason: str, seconds: float | None = None) -> None:
        """Let every call through and open for none; outcomes are still counted.

        Args:
            reason: Why, for logs and metrics; not empty.
            seconds: How long; afterwards the circuit is closed. None means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self._set_mode(reason, seconds, lambda _, until: self._machine.disable(reason, until))

    def shadow(self, reason: str, seconds: float | None = None) -> None:
        """Decide and report as ever, but let through what would be refused.

        Args:
            reason: Why, for logs and metrics; not empty.
            seconds: How long; afterwards the circuit refuses what it decides to refuse. None
                means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self._set_mode(reason, seconds, lambda _, until: self._machine.shadow(reason, until))

    def _set_mode(
        self,
        reason: str,
        seconds: float | None,
        begin: Callable[[float, float | None], ManualMode],
    ) -> None:
        if error := (
            name_error("reason", reason)
            or (seconds is not None and number_error("seconds", seconds))
        ):
            raise error
        now = self._clock()
        with self._mutex:
            self._machine.advance(now)
            mode = begin(now, None if seconds is None else now + seconds)
            events = self._take_events(now)
            self._begin_summary(now)
        log_mode(self._name, mode, seconds)
        self._publish(events)

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
            if block is None and shared_leave is not None and shared_leave.__self__.permit is None:
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
                failed = self._is_failed_result(result)
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
                failed = self._is_failure(cast("Exception", error))
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
            reason = (self._evidence or self._first_evidence()).open_because(reason)
            self._begin_summary(now)
        elif transition.to_state is CircuitState.CLOSED and self._evidence is not None:
            self._evidence.reason = None
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

    # Seams for tests, documented: they set the state and read it back.

    @property
    def _lock(self) -> StateLock:
        return StateLock(self._mutex)

    async def _check_state(self) -> None:
        """Let the time that has passed act on the state."""
        self._look()

    @property
    def _state(self) -> CircuitState:
        return self.state

    @_state.setter
    def _state(self, state: CircuitState) -> None:
        now = since = self._clock()
        if (failed_at := self._last_failure_time) is not None:
            since -= time.time() - failed_at.timestamp()
        with self._mutex:
            self._machine.force_state(CircuitState(state), since)
            events = self._take_events(now)
        self._publish(events)

    @property
    def _last_failure_time(self) -> datetime | None:
        failed_at = self._evidence.failed_at if self._evidence is not None else None
        return None if failed_at is None else datetime.fromtimestamp(failed_at, UTC)

    @_last_failure_time.setter
    def _last_failure_time(self, failed_at: datetime | None) -> None:
        with self._mutex:
            evidence = self._evidence or self._first_evidence()
            evidence.failed_at = None if failed_at is None else failed_at.timestamp()
            if evidence.failed_at is not None:
                # Wall time plays no part in the rules, so it becomes a time on the clock here.
                self._machine.move_opening(self._clock() - (time.time() - evidence.failed_at))


def _short_cuts(
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
