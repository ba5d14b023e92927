"""The circuit breaker: guards a call in every form in which Python makes one.

`circuit_state` holds the rules, `guard` the steps that all forms share. The guarded call
always runs outside the lock.
"""

import inspect
import time
from _thread import RLock
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from functools import partial
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, overload

from example_service.infra.resilience.events import (
    CircuitListener,
)
from example_service.infra.resilience.guard import BreakerCore, short_cuts
from example_service.infra.resilience.guarded_block import (
    BlockExit,
    BlockExitSync,
    prepared_blocks,
)
from example_service.infra.resilience.guarded_function import guarded, is_future, settle_when_done
from example_service.infra.resilience.listeners import Listeners
from example_service.infra.resilience.registry import (
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.circuit_state import (
    NO_TOTALS,
    CircuitState,
    CircuitStateMachine,
    Closed,
    HalfOpen,
    Mode,
    Permit,
)
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.state_lock import StateLock
from example_service.infra.resilience.state_log import log_mode
from example_service.infra.resilience.validation import (
    callable_error,
    count_error,
    exception_types_error,
    instance_error,
    mode_error,
    name_error,
    number_error,
    predicate_error,
)

P = ParamSpec("P")
R = TypeVar("R")


class CircuitBreaker(BreakerCore):
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

    __slots__ = ()

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
        if error := (
            name_error("name", name)
            or count_error("failure_threshold", failure_threshold)
            or number_error("recovery_timeout", recovery_timeout)
            or count_error("success_threshold", success_threshold)
            or count_error("half_open_max_calls", half_open_max_calls)
            or (probe_timeout is not None and number_error("probe_timeout", probe_timeout))
            or exception_types_error("expected_exception", expected_exception)
            or (is_failure is not None and predicate_error("is_failure", is_failure))
            or (
                is_failed_result is not None
                and predicate_error("is_failed_result", is_failed_result)
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
            recovery_timeout if probe_timeout is None else probe_timeout,
            backoff,
            failure_rate,
            slow_call_duration,
            short_cuts(is_failure, is_failed_result, slow_call_duration, failure_rate, told),
        )
        self._mutex = RLock()  # What `threading.RLock` returns, without a call in between.
        self._evidence = self._summary = self._unclaimed = None
        self._forgotten = NO_TOTALS
        self._registry = None  # The registry sets it.
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
                it is awaited; a future that it returns is the call, whose outcome counts when the
                future has one. A generator asks when its first item is asked for, holds its permit
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

        A future that it returns is the call, whose outcome counts when the future has one.

        Raises:
            CircuitOpenError: The circuit refused; `func` was not called.
            TypeError: `func` returned a coroutine, which `call` can await and this cannot.
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
        if result.__class__ is CoroutineType:
            cast("CoroutineType[Any, Any, Any]", result).close()
            self._release(permit)
            raise TypeError(f"call_sync cannot await {func!r}: use `await call(...)`")
        if hasattr(type(result), "add_done_callback") and is_future(result):
            settle_when_done(self, permit, result)
        elif permit.quiet:
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
        self._begin_reset()()

    def _begin_reset(self) -> Callable[[], None]:
        """Reset, and return what tells of it, to be called outside of every lock."""
        now = self._clock()
        with self._mutex:
            self._machine.advance(now)
            events = self._take_events(now)
            self._machine.reset()
            self._forgotten = self._machine.totals()
            self._evidence = None
            events += self._take_events(now)
        return partial(self._publish, events)

    def force_open(self, reason: str, seconds: float | None = None) -> None:
        """Refuse every call, whatever the dependency does.

        Args:
            reason: Why, for logs, metrics and errors: printable, 1 to 500 characters.
            seconds: How long; afterwards the circuit is half-open. None means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self._begin_mode(Mode.FORCED_OPEN, reason, seconds)()

    def disable(self, reason: str, seconds: float | None = None) -> None:
        """Let every call through and open for none; outcomes are still counted.

        Args:
            reason: Why, for logs and metrics: printable, 1 to 500 characters.
            seconds: How long; afterwards the circuit is closed. None means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self._begin_mode(Mode.DISABLED, reason, seconds)()

    def shadow(self, reason: str, seconds: float | None = None) -> None:
        """Decide and report as ever, but let through what would be refused.

        Args:
            reason: Why, for logs and metrics: printable, 1 to 500 characters.
            seconds: How long; afterwards the circuit refuses what it decides to refuse. None
                means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self._begin_mode(Mode.SHADOW, reason, seconds)()

    def _begin_in_mode(self, mode: Mode, reason: str, seconds: float | None) -> None:
        """Begin in a mode that holds for the name already; of that nobody is told."""
        self._begin_mode(mode, reason, seconds)
        self._machine.state_changes = None

    def _begin_mode(self, mode: Mode, reason: str, seconds: float | None) -> Callable[[], None]:
        """Set a mode, and return what tells of it, to be called outside of every lock."""
        if error := mode_error(reason, seconds):
            raise error
        now = self._clock()
        until = None if seconds is None else now + seconds
        with self._mutex:
            self._machine.advance(now)
            if mode is Mode.FORCED_OPEN:
                begun = self._machine.force_open(reason, now, until)
            elif mode is Mode.DISABLED:
                begun = self._machine.disable(reason, until)
            else:
                begun = self._machine.shadow(reason, until)
            events = self._take_events(now)
            self._begin_summary(now)

        def tell() -> None:
            log_mode(self._name, begun, seconds)
            self._publish(events)

        return tell

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
