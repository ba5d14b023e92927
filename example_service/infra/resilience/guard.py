"""Guard anything: ask the rules for a permit, hand it back with the outcome.

    permit = guard.acquire()            # raises CircuitOpenError if the circuit refuses
    try:
        answer = client.send(request)
    except BaseException as error:
        guard.settle(permit, error)     # the parameters decide: a failure, a success or neutral
        raise
    guard.succeed(permit)

`CircuitBreaker` and the integrations are built on these two steps. The lock protects only the
decision: the guarded call, logs, listeners and the registry run outside it.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from example_service.infra.resilience import fork
from example_service.infra.resilience.events import (
    CallFailed,
    CallSucceeded,
    CircuitListener,
    Event,
)
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.listeners import Listeners
from example_service.infra.resilience.locked_circuit import LockedCircuit
from example_service.infra.resilience.nested_calls import (
    count_once,
    mark_probe,
    outer_call,
    outer_probe,
    without_counted,
)
from example_service.infra.resilience.outcomes import (
    DEFAULT_CLASSIFIER,
    Classifier,
    ExceptionTypes,
    Outcome,
)
from example_service.infra.resilience.parameters import default_probe_timeout
from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.rules.phases import (
    COUNTED,
    STALE,
    Closed,
    HalfOpen,
    Open,
    Permit,
    TimedCall,
    is_uncounted,
    timed_call,
)
from example_service.infra.resilience.rules.states import CircuitState
from example_service.infra.resilience.validation import (
    check_callable,
    check_count,
    check_instance,
    check_name,
    check_number,
)

# A global is found faster than a member of an enumeration, or of a class.
_OPEN = CircuitState.OPEN
_new_tuple = tuple.__new__


class Guard(LockedCircuit):
    """One circuit, and the two steps around each call: take a permit, hand it back.

    Safe to use from any thread and any event loop, in a finalizer and in a signal handler. After
    `os.fork` the child has the same state, a lock of its own, and no call in flight.

    The parameters are those of `CircuitBreaker`, except `registry`.

    Attributes:
        classifier: The parameters that decide what counts.
        unclaimed: Permits of blocks whose exit is not known yet; see `guarded_block`.
    """

    __slots__ = (
        "classifier",
        "unclaimed",
    )

    def __init__(  # noqa: PLR0917 - `CircuitBreaker` passes them by position, which is faster.
        self,
        name: str,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        success_threshold: int = 2,
        half_open_max_calls: int = 3,
        expected_exception: ExceptionTypes = Exception,
        is_failure: Callable[[Exception], bool] | None = None,
        is_success: Callable[[Exception], bool] | None = None,
        open_for: Callable[[Any], float | None] | None = None,
        is_failed_result: Callable[[Any], bool] | None = None,
        slow_call_duration: float | None = None,
        failure_rate: FailureRate | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008
        probe_timeout: float | None = None,
        listeners: Iterable[CircuitListener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_name("name", name)
        check_count("failure_threshold", failure_threshold)
        check_number("recovery_timeout", recovery_timeout)
        check_count("success_threshold", success_threshold)
        check_count("half_open_max_calls", half_open_max_calls)
        check_instance("backoff", backoff, Backoff)
        check_callable("clock", clock)
        if probe_timeout is None:
            probe_timeout = default_probe_timeout(recovery_timeout)
        else:
            check_number("probe_timeout", probe_timeout)
        if slow_call_duration is not None:
            check_number("slow_call_duration", slow_call_duration)
        if failure_rate is not None:
            check_instance("failure_rate", failure_rate, FailureRate)
        given = (expected_exception, is_failure, is_success, is_failed_result, open_for)
        classifier = DEFAULT_CLASSIFIER if given == DEFAULT_CLASSIFIER else Classifier(*given)
        if classifier is not DEFAULT_CLASSIFIER:
            classifier.check()
        notified = Listeners(listeners) if listeners != () else None
        is_timed = slow_call_duration is not None or (
            notified is not None and bool(notified.on_success or notified.on_failure)
        )
        self.classifier = classifier
        machine = CircuitStateMachine(
            failure_threshold,
            recovery_timeout,
            success_threshold,
            half_open_max_calls,
            probe_timeout,
            backoff,
            failure_rate,
            slow_call_duration,
            classifier.lock_free_steps(failure_rate, notified, is_timed=is_timed),
        )
        super().__init__(name, machine, notified, clock)
        self.unclaimed: list[TimedCall] | None = None

    # The two steps.

    def acquire(self) -> Permit:
        """Take the permit for one call. Hand it back exactly once, with one of the methods below.

        It may be handed back in another task or thread. Calls that are made meanwhile need permits
        of their own; see `enter` for the alternative.

        Raises:
            CircuitOpenError: The circuit refuses the call.
        """
        permit = next(self.machine.permits, None)
        return self.admit(marks_probe=False) if permit is None else permit

    def enter(self) -> Permit:
        """Take the permit for a call that ends in the current context, such as a block.

        If it is a probe, other calls through this guard in the same context are part of it while it
        runs: they need no probe slot, and only the outcome of the probe counts.

        Raises:
            CircuitOpenError: The circuit refuses the call.
        """
        permit = next(self.machine.permits, None)
        return self.admit() if permit is None else permit

    def succeed(self, permit: Permit) -> None:
        """Hand a permit back: the call succeeded."""
        machine, now = self.machine, self.clock()
        if isinstance(permit, Closed):
            needs_lock = not permit.lock_free or now >= machine.due
        else:
            running = machine.running
            needs_lock = (
                not permit.phase.lock_free
                or now >= machine.due
                or (running is not None and running.pop(permit, None) is None)
            )
        if needs_lock:
            self._decide(self._record_success, permit)
            return
        if machine.has_blocks and isinstance(permit, TimedCall):
            permit.phase = STALE
        next(machine.successes)
        if self.has_success_listener:
            self.notify_success(_seconds_of(permit, now))

    @property
    def has_success_listener(self) -> bool:
        """Whether a listener has the hook `on_success`."""
        return self._listeners is not None and bool(self._listeners.on_success)

    def notify_success(self, seconds: float) -> None:
        """Call the hooks `on_success`. Requires `has_success_listener`."""
        listeners = cast("Listeners", self._listeners)
        # The same as `CallSucceeded(...)`, in half the time.
        event = _new_tuple(CallSucceeded, (self._name, seconds))
        for hook in listeners.on_success:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001 - A listener must not break the call.
                listeners.log_once(hook, event, error)

    def fail(
        self, permit: Permit, error_type: str | None = None, open_for: float | None = None
    ) -> None:
        """Hand a permit back: the call failed.

        Args:
            permit: What `acquire` returned.
            error_type: Type name of the exception; None if the result was the failure.
            open_for: Seconds for which the dependency asks callers to wait: the circuit opens at
                once, for that long. None if it does not ask.
        """
        self._decide(self._record_failure, permit, error_type, open_for)

    def release(self, permit: Permit) -> None:
        """Hand a permit back: the call says nothing about the dependency."""
        self._decide(self._record_neutral, permit)

    def settle(self, permit: Permit, error: BaseException | None = None) -> None:
        """Hand a permit back with the exception that ended the call, or None for success.

        The parameters of the breaker decide whether the exception is a failure, a success or
        neutral. The caller lets it propagate.

        Raises:
            BaseException: Whatever a predicate raises; the call is then neutral.
        """
        if error is None:
            self.succeed(permit)
            return
        outage = self._outage
        # An exception of the same type as the last failure need not be classified again.
        if (
            outage is None
            or type(error) is not outage.failing_type
            or error.__cause__ is not None
            or permit.__class__ is not Closed
        ):
            self._settle_error(permit, error)
        elif not count_once(error, self):
            self.release(permit)
        elif next(permit.lock_free_failures, None):
            permit.counts_only = permit.lock_free = False
            outage.failed_at = time.time()
        else:
            self._decide(self._record_failure, permit, type(error).__name__, None)

    def settle_result(self, permit: Permit, result: object) -> None:
        """Hand a permit back with the value that the call returned.

        Raises:
            BaseException: Whatever a predicate raises; the call is then neutral.
        """
        if not self.settle_failed_result(permit, result):
            self.succeed(permit)

    def settle_failed_result(self, permit: Permit, result: object) -> bool:
        """Hand a permit back if `is_failed_result` says that the call failed.

        Returns:
            Whether it did.

        Raises:
            BaseException: Whatever a predicate raises; the call is then neutral.
        """
        is_failed_result = self.classifier.is_failed_result
        try:
            if is_failed_result is None or not is_failed_result(result):
                return False
        except BaseException:
            self.release(permit)
            raise
        self.fail_result(permit, result)
        return True

    def fail_result(self, permit: Permit, result: object) -> None:
        """Hand a permit back: `is_failed_result` has said that this value is a failure.

        Raises:
            BaseException: Whatever `open_for` raises; the call is then neutral.
        """
        try:
            seconds = self.classifier.seconds_to_open(result)
        except BaseException:
            self.release(permit)
            raise
        self.fail(permit, None, seconds)

    def seconds_to_open(self, failure: object) -> float | None:
        """For how many seconds a failure asks callers to wait, by `open_for`; None if it does not.

        Raises:
            BaseException: Whatever `open_for` raises.
        """
        return self.classifier.seconds_to_open(failure)

    def look(self) -> CircuitState:
        """Process what has become due, and return the state."""
        machine = self.machine
        if self._forks != fork.generation or (
            machine.due < math.inf and self.clock() >= machine.due
        ):
            self._decide(machine.advance)
        return machine.phase.state

    def follow(
        self, state: CircuitState, reason: str, wait_seconds: float = 0.0, reopenings: int = 0
    ) -> None:
        """Open or close with the other processes of a fleet; a mode takes precedence.

        Args:
            state: OPEN or CLOSED.
            reason: Why, for logs, metrics and errors.
            wait_seconds: How long an open period lasts.
            reopenings: Failed recoveries of the fleet so far, for the backoff.
        """
        self._decide(self._follow, state, reason, wait_seconds, reopenings)

    def admit(self, *, marks_probe: bool = True) -> Permit:
        """Take a permit when `machine.permits` yields none: calls are timed, or it is not closed.

        Args:
            marks_probe: Whether other calls in this context are part of a probe, as in `enter`.

        Raises:
            CircuitOpenError: The circuit refuses the call.
        """
        now = self.clock()
        machine = self.machine
        running = machine.running
        outer = outer_call(running, machine.phase) if running and machine.has_blocks else None
        if now < machine.due and (closed := next(machine.admissions, None)) is not None:
            call = timed_call(closed, now, outer)
            if running is not None:
                running[call] = now
            return call
        phase = machine.phase
        if isinstance(phase, Open):
            outage = self._outage
            if now < phase.until and outage is not None and now < outage.silent_until:
                next(machine.refusals)
                raise CircuitOpenError(self._name, _OPEN, phase.until - now, outage.reason)
        elif isinstance(phase, HalfOpen):
            outer = outer_probe(phase)
        answer = self._decide(self._try_acquire, outer, may_wait=False)
        if answer is None:
            return self._admit_while_deciding(now, outer)
        permit, state, retry_after, rejections = answer
        if permit is not None:
            if marks_probe:
                mark_probe(permit)
            return cast("Permit", permit)
        raise self._refusal(state, retry_after, rejections)

    def _admit_while_deciding(self, now: float, outer: TimedCall | None) -> Permit:
        """Handle a call from a finalizer or signal handler that interrupted a decision.

        It must not wait, because the interrupted decision is in the same thread. It is no probe.
        """
        phase = self.machine.phase
        if isinstance(phase, Closed) or outer is not None:
            self._decide(self.machine.count_admission)
            return timed_call(phase if isinstance(phase, Closed) else COUNTED, now)
        self._decide(self.machine.count_rejection)
        retry_after = self.machine.retry_after(now)
        raise CircuitOpenError(self._name, phase.state, retry_after, self._reason())

    def _settle_error(self, permit: Permit, error: BaseException) -> None:
        if is_uncounted(permit):
            self.release(permit)
            return
        classifier = self.classifier
        try:
            outcome = classifier.outcome(error)
            is_failure = outcome is Outcome.FAILURE and count_once(error, self)
            if is_failure and isinstance(error, BaseExceptionGroup):
                rest = without_counted(error, self)
                is_failure = rest is error or (
                    rest is not None and classifier.outcome(rest) is Outcome.FAILURE
                )
            seconds = classifier.seconds_to_open(error) if is_failure else None
        except BaseException:
            self.release(permit)
            raise
        if is_failure:
            kind = type(error)
            self.fail(permit, kind.__name__, seconds)
            if (outage := self._outage) is not None and outage.last_kind == kind.__name__:
                is_plain = not isinstance(error, BaseExceptionGroup)
                outage.failing_type = (
                    kind if is_plain and not classifier.looks_into_exceptions else None
                )
        elif outcome is Outcome.SUCCESS:
            self.succeed(permit)
        else:
            self.release(permit)

    # The steps that `_decide` runs under the lock.

    def _try_acquire(
        self, outer: TimedCall | None, now: float
    ) -> tuple[Permit | None, CircuitState, float | None, int]:
        machine = self.machine
        permit = machine.try_acquire(now, outer)
        state, retry_after = machine.phase.state, machine.retry_after(now)
        return permit, state, retry_after, 0 if permit is not None else self._take_summary(now)

    def _record_success(self, permit: Permit, now: float) -> Event | None:
        if not self.machine.record_success(permit, now) or self._listeners is None:
            return None
        return CallSucceeded(self._name, _seconds_of(permit, now))

    def _record_failure(
        self, permit: Permit, error_type: str | None, open_for: float | None, now: float
    ) -> Event | None:
        if not self.machine.record_failure(permit, now, open_for):
            return None
        outage = self._outage or self._first_outage()
        outage.remember(error_type or "failed result", time.time())
        if self._listeners is None:
            return None
        return CallFailed(self._name, error_type, _seconds_of(permit, now))

    def _record_neutral(self, permit: Permit, now: float) -> None:
        self.machine.release(permit, now)

    def _follow(
        self, state: CircuitState, reason: str, wait_seconds: float, reopenings: int, now: float
    ) -> None:
        if self._outage is not None and self.machine.phase.state is not state:
            # The failures of this process are not the reason.
            self._outage.forget_kinds()
        self.machine.follow(state, reason, wait_seconds, reopenings, now)


def _seconds_of(permit: Permit, now: float) -> float:
    """How long the permit's call has been running; 0.0 if calls are not timed."""
    return now - permit.started if isinstance(permit, TimedCall) else 0.0
