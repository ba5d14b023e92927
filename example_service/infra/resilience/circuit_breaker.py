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
    GIL_ENABLED,
    NO_TOTALS,
    CircuitState,
    CircuitStateMachine,
    Closed,
    HalfOpen,
    Open,
    Permit,
    Transition,
)
from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitListener,
    StateChanged,
)
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.guarded_block import BlockExit, BlockExitSync, prepared_blocks
from example_service.infra.resilience.guarded_function import guarded
from example_service.infra.resilience.listeners import Listeners
from example_service.infra.resilience.registry import (
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.state_lock import StateLock
from example_service.infra.resilience.state_log import log_rejections, log_state_change
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

SECONDS_BETWEEN_SUMMARIES = 1.0


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
        "_expected_exception",
        "_forgotten",
        "_is_failed_result",
        "_is_failure",
        "_last_error_type",
        "_last_failure",
        "_listeners",
        "_machine",
        "_mutex",
        "_name",
        "_rejections_logged",
        "_silent_until",
        "_summary_due",
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
            is_failed_result is None and (told is None or not told.on_success),
            is_failure is None and (told is None or not told.on_failure),
        )
        self._mutex = RLock()
        self._last_failure: float | None = None
        self._last_error_type: str | None = None
        self._forgotten = NO_TOTALS
        self._rejections_logged = 0
        self._summary_due = self._silent_until = -math.inf
        if registry is not None:
            registry.watch(self)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self._name!r} {self._machine.phase.state.value}>"

    # Ways to call.

    def protected(self, func: Callable[P, R]) -> Callable[P, R]:
        """Guard every call of a function; for use as a decorator.

        Args:
            func: A coroutine function or a plain function. What a plain function returns is
                guarded until it is awaited to its end, if it is a coroutine.

        Returns:
            A function of the same kind, signature and metadata.

        Raises:
            TypeError: `func` is not callable, or is a generator function: its outcome is known
                only when the consumer has read it to the end.
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
    def listeners(self) -> tuple[CircuitListener, ...]:
        """The objects that are told what happens."""
        return self._listeners.given if self._listeners is not None else ()

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
            - `retry_after`: seconds until a call may be admitted, 0.0 unless open.
            - `opened_count`: openings since construction or the last `reset`.
            - `in_flight`: calls admitted that have not ended.
        """
        now = self._clock()
        with self._mutex:
            self._machine.advance(now)
            transitions = self._take_transitions(now)
            machine, phase = self._machine, self._machine.phase
            totals, forgotten = machine.totals(), self._forgotten
            failure_count, in_flight = machine.failures_in_a_row(), machine.in_flight()
            retry_after = machine.retry_after(now)
            last_failure = self._last_failure_time
        self._publish(transitions)
        failures = totals.failures - forgotten.failures
        successes = totals.successes - forgotten.successes
        return {
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

    # By hand.

    async def reset(self) -> None:
        """Close the circuit and forget counts, totals, backoff and the last failure.

        Calls in flight become stale: their outcomes no longer act on the state. What Prometheus
        is told never goes down.
        """
        with self._mutex:
            self._machine.reset()
            self._forgotten = self._machine.totals()
            self._last_failure = self._last_error_type = None
            transitions = self._take_transitions(self._clock())
        self._publish(transitions)

    # Deciding.

    def _admit(self) -> Permit:
        """The permit of one call.

        Raises:
            CircuitOpenError: The circuit refuses.
        """
        now = self._clock()
        machine = self._machine
        phase = machine.phase
        if isinstance(phase, Open) and now < phase.until and now < self._silent_until:
            next(phase.refusals)
            raise CircuitOpenError(self._name, CircuitState.OPEN, phase.until - now)
        with self._mutex:
            permit = machine.try_acquire(now)
            transitions = self._take_transitions(now)
            state, retry_after = machine.phase.state, machine.retry_after(now)
            summary = 0 if permit is not None else self._take_summary(now)
        self._publish(transitions)
        if permit is not None:
            return permit
        if summary:
            log_rejections(self._name, state, summary, retry_after)
        if (told := self._listeners) is not None and told.on_rejection:
            told.tell(told.on_rejection, CallRejected(self._name, state, retry_after))
        raise CircuitOpenError(self._name, state, retry_after)

    def _enter_block(self) -> None:
        """Admit a block whose permit the shared short cut does not cover.

        Raises:
            CircuitOpenError: The circuit refuses.
        """
        block = prepared_blocks.pop(get_ident(), None) if prepared_blocks else None
        shared_leave = self._machine.phase_memo
        permit: Permit | None = next(self._machine.permits, None)
        if permit is None:
            permit = self._admit()
        if block is None and shared_leave is not None:
            block = shared_leave.__self__
        if block is not None and block.enter(self, permit):
            return
        if not isinstance(permit, Closed):
            # Between the look-up of the exit and here, another thread turned the circuit
            # half-open: the exit at hand could not give the probe back.
            self._release(permit)
            raise CircuitOpenError(self._name, CircuitState.HALF_OPEN, 0.0)

    def _settle_success(self, permit: Permit, result: object = None) -> None:
        """Account for a call that returned."""
        if self._is_failed_result is not None and permit is not None:
            try:
                failed = self._is_failed_result(result)
            except BaseException:
                self._release(permit)
                raise
            if failed:
                self._fail(permit, None)
                return
        now = self._clock()
        with self._mutex:
            counted = self._machine.record_success(permit, now)
            transitions = self._take_transitions(now)
        if counted and (told := self._listeners) is not None and told.on_success:
            told.tell(told.on_success, CallSucceeded(self._name))
        self._publish(transitions)

    def _settle_error(self, permit: Permit, error: BaseException) -> None:
        """Account for a call that raised; the caller lets the exception go on."""
        failed = isinstance(error, self._expected_exception)
        if failed and next(permit.allowance, None):
            permit.quiet = False
            self._last_failure = time.time()
            self._last_error_type = type(error).__name__
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
        with self._mutex:
            counted = self._machine.record_failure(permit, now)
            if counted:
                self._last_failure = time.time()
                self._last_error_type = error_type
            transitions = self._take_transitions(now)
        if counted and (told := self._listeners) is not None and told.on_failure:
            told.tell(told.on_failure, CallFailed(self._name, error_type))
        self._publish(transitions)

    def _release(self, permit: Permit) -> None:
        now = self._clock()
        with self._mutex:
            self._machine.release(permit, now)
            transitions = self._take_transitions(now)
        self._publish(transitions)

    def _look(self) -> None:
        """Let the time that has passed act on the state."""
        if isinstance(self._machine.phase, Closed):
            return
        now = self._clock()
        with self._mutex:
            self._machine.advance(now)
            transitions = self._take_transitions(now)
        self._publish(transitions)

    # Telling.

    def _take_transitions(self, now: float) -> list[tuple[StateChanged, bool]] | None:
        """The changes of state to publish, each with whether a probe was overdue.

        Requires the lock.
        """
        transitions = self._machine.take_transitions()
        if transitions is None:
            return None
        return [
            (self._state_changed(one, now), one.overdue_since is not None) for one in transitions
        ]

    def _state_changed(self, transition: Transition, now: float) -> StateChanged:
        """Requires the lock."""
        opened = transition.to_state is CircuitState.OPEN
        if transition.overdue_since is not None:
            self._last_failure = time.time() - (now - transition.overdue_since)
            self._last_error_type = None
        if opened:
            self._rejections_logged = self._machine.rejections()
            self._plan_summary(now)
        return StateChanged(
            breaker_name=self._name,
            from_state=transition.from_state,
            to_state=transition.to_state,
            wait_seconds=transition.wait_seconds,
            failure_count=transition.failure_count,
            rejections=transition.rejections,
            error_type=self._last_error_type if opened else None,
        )

    def _publish(self, changes: list[tuple[StateChanged, bool]] | None) -> None:
        for event, probe_was_overdue in changes or ():
            log_state_change(event, self.probe_timeout if probe_was_overdue else None)
            if (told := self._listeners) is None:
                continue
            if probe_was_overdue:
                told.tell(told.on_failure, CallFailed(self._name, None))
            told.tell(told.on_state_change, event)

    def _plan_summary(self, now: float) -> None:
        """Put off the next line about rejections. Requires the lock."""
        self._summary_due = now + SECONDS_BETWEEN_SUMMARIES
        if GIL_ENABLED and (self._listeners is None or not self._listeners.on_rejection):
            self._silent_until = self._summary_due

    def _take_summary(self, now: float) -> int:
        """Rejections to log now, or 0 while the last line is recent. Requires the lock."""
        if now < self._summary_due:
            return 0
        rejections = self._machine.rejections()
        count, self._rejections_logged = rejections - self._rejections_logged, rejections
        self._plan_summary(now)
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
        now = self._clock()
        with self._mutex:
            self._machine.force_state(CircuitState(state), now)
            transitions = self._take_transitions(now)
        self._publish(transitions)

    @property
    def _last_failure_time(self) -> datetime | None:
        return (
            None if self._last_failure is None else datetime.fromtimestamp(self._last_failure, UTC)
        )

    @_last_failure_time.setter
    def _last_failure_time(self, failed_at: datetime | None) -> None:
        with self._mutex:
            self._last_failure = None if failed_at is None else failed_at.timestamp()
            if self._last_failure is not None:
                # Wall time plays no part in the rules, so it becomes a time on the clock here.
                self._machine.move_opening(self._clock() - (time.time() - self._last_failure))
