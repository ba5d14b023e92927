"""The outcome of a call: success, failure or neutral.

    success     a returned value; the end of an iteration; an exception that `is_success` accepts
    failure     an exception in `expected_exception`, unless `is_failure` returns False
    neutral     everything else: another exception, a refusal, cancellation in every form

An exception group is judged by the exceptions in it: a failure if one of them is, else neutral.
"""

from collections.abc import Callable
from concurrent.futures import CancelledError
from enum import Enum
from typing import Any, NamedTuple

from example_service.infra.resilience.exceptions import MAX_CHAIN, CircuitOpenError
from example_service.infra.resilience.listeners import Listeners
from example_service.infra.resilience.rules import lockfree
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.rules.phases import (
    ALL_LOCK_FREE_STEPS,
    NO_LOCK_FREE_STEPS,
    LockFreeSteps,
)
from example_service.infra.resilience.validation import check_exception_types, check_predicate

ExceptionTypes = type[Exception] | tuple[type[Exception], ...]

MAX_OPEN_FOR = 86_400.0
"""The longest wait in seconds that `open_for` can ask for: a day."""

_END_OF_ITERATION = (StopIteration, StopAsyncIteration)


class Outcome(Enum):
    """How a call ended, for the rules."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class Classifier(NamedTuple):
    """The parameters of a breaker that decide what counts; see `CircuitBreaker`."""

    expected_exception: ExceptionTypes = Exception
    is_failure: Callable[[Exception], bool] | None = None
    is_success: Callable[[Exception], bool] | None = None
    is_failed_result: Callable[[Any], bool] | None = None
    open_for: Callable[[Any], float | None] | None = None

    def check(self) -> None:
        """Check the types, so that mistakes are found before the first call.

        Raises:
            TypeError: A value is of the wrong type; the message names the parameter.
        """
        check_exception_types("expected_exception", self.expected_exception)
        for parameter in ("is_failure", "is_success", "is_failed_result", "open_for"):
            if (predicate := getattr(self, parameter)) is not None:
                check_predicate(parameter, predicate)

    def seconds_to_open(self, failure: object) -> float | None:
        """The wait that a failure asks for, in seconds; None if it does not ask.

        For an exception group, the longest wait of the failures in it.

        Raises:
            BaseException: Whatever a predicate raises.
        """
        if self.open_for is None:
            return None
        if isinstance(failure, BaseExceptionGroup) and not self._expects(BaseExceptionGroup):
            failures = [
                inner for inner in failure.exceptions if self.outcome(inner) is Outcome.FAILURE
            ]
            waits = [self.seconds_to_open(inner) for inner in failures]
            return max((wait for wait in waits if wait is not None), default=None)
        seconds = self.open_for(failure)
        if seconds is None:
            return None
        try:
            is_wait = seconds > 0  # NaN is not.
        except TypeError:
            raise TypeError(f"open_for must return seconds or None, not {seconds!r}") from None
        return float(min(seconds, MAX_OPEN_FOR)) if is_wait else None

    def outcome(self, error: BaseException) -> Outcome:
        """Classify an exception that a guarded call has raised.

        Raises:
            BaseException: Whatever a predicate raises.
        """
        if isinstance(error, BaseExceptionGroup) and not self._expects(BaseExceptionGroup):
            outcomes = {self.outcome(inner) for inner in error.exceptions}
            return Outcome.FAILURE if Outcome.FAILURE in outcomes else Outcome.NEUTRAL
        if isinstance(error, _END_OF_ITERATION) or _wraps_end_of_iteration(error):
            return Outcome.SUCCESS
        if isinstance(error, CancelledError) or not isinstance(error, Exception):
            return Outcome.NEUTRAL
        if _is_refusal(error) and not self._expects(CircuitOpenError):
            return Outcome.NEUTRAL
        if self.is_success is not None and self.is_success(error):
            return Outcome.SUCCESS
        return Outcome.FAILURE if self._is_failure(error) else Outcome.NEUTRAL

    def _is_failure(self, error: Exception) -> bool:
        if not isinstance(error, self.expected_exception):
            return False
        return self.is_failure is None or bool(self.is_failure(error))

    @property
    def looks_into_exceptions(self) -> bool:
        """Whether exceptions of the same type may have different outcomes."""
        return not (self.is_failure is None and self.is_success is None and self.open_for is None)

    def lock_free_steps(
        self, failure_rate: FailureRate | None, listeners: Listeners | None, *, is_timed: bool
    ) -> LockFreeSteps:
        """The steps of a closed circuit that change nothing but a count."""
        if not lockfree.GIL_ENABLED:
            return NO_LOCK_FREE_STEPS._replace(timed=is_timed)
        if self is DEFAULT_CLASSIFIER and failure_rate is None and not is_timed:
            return ALL_LOCK_FREE_STEPS
        in_time = failure_rate is not None and failure_rate.window_seconds is not None
        has_failure_listener = listeners is not None and bool(listeners.on_failure)
        return LockFreeSteps(
            admissions=True,
            successes=True,
            counts_only=self.is_failed_result is None and not in_time and not is_timed,
            failures=not (self.looks_into_exceptions or failure_rate or has_failure_listener),
            timed=is_timed,
        )

    def _expects(self, kind: type[BaseException]) -> bool:
        """Whether `expected_exception` contains this type or a subclass of it."""
        expected = self.expected_exception
        types = expected if isinstance(expected, tuple) else (expected,)
        return any(issubclass(expected_type, kind) for expected_type in types)


DEFAULT_CLASSIFIER = Classifier()


def _wraps_end_of_iteration(error: BaseException) -> bool:
    """Whether Python turned a StopIteration into this error (PEP 479)."""
    return type(error) is RuntimeError and isinstance(error.__cause__, _END_OF_ITERATION)


def _is_refusal(error: BaseException) -> bool:
    """Whether an error is a refusal by a breaker, or was raised from one."""
    link: BaseException | None = error
    for _ in range(MAX_CHAIN):
        if link is None or isinstance(link, CircuitOpenError):
            break
        link = link.__cause__
    return isinstance(link, CircuitOpenError)
