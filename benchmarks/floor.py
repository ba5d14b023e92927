"""The floor: the least code that could be called a circuit breaker.

It checks the state, resets the count on success and counts failures. It has no lock, generation,
total, metric, probe limit or listener, so the extra time of a complete breaker is the price of
those. Each form is written out in full, because one more method call would already add a sixth to
the time.
"""

from collections.abc import Awaitable, Callable
from enum import Enum
from functools import wraps
from time import monotonic
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class FloorState(Enum):
    """The two states of the floor; a probe simply finds it closed."""

    CLOSED = "closed"
    OPEN = "open"


# Looked up on every call; a module's name costs a third of a class attribute.
_OPEN = FloorState.OPEN


class FloorRefusedError(Exception):
    """A refused call, with the breaker and the wait; no message is formatted.

    Args:
        breaker_name: The breaker that refused.
        retry_after: Seconds until a call is admitted again.
    """

    def __init__(self, breaker_name: str, retry_after: float) -> None:
        self.breaker_name = breaker_name
        self.retry_after = retry_after


class FloorBreaker:
    """Opens after failures in a row, refuses for a while, then admits calls again.

    Args:
        name: The name in the refusal.
        failure_threshold: Failures in a row that open it.
        recovery_timeout: Seconds until the next call is admitted.
        expected_exception: The exception that counts as a failure.
    """

    def __init__(
        self,
        name: str,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        expected_exception: type[Exception] = Exception,
    ) -> None:
        self.name = name
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self.expected_exception = expected_exception
        self.state = FloorState.CLOSED
        self.failures = 0
        self.retry_at = 0.0

    def protected(self, func: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        """Guard every call of a coroutine function."""

        @wraps(func)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if self.state is _OPEN:
                self._admit_or_refuse()
            try:
                result = await func(*args, **kwargs)
            except Exception as error:
                self._count_failure(error)
                raise
            self.failures = 0
            return result

        return guarded

    async def call(self, func: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Guard one call of a coroutine function."""
        if self.state is _OPEN:
            self._admit_or_refuse()
        try:
            result = await func(*args, **kwargs)
        except Exception as error:
            self._count_failure(error)
            raise
        self.failures = 0
        return result

    async def __aenter__(self) -> Self:
        if self.state is _OPEN:
            self._admit_or_refuse()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.failures = 0
        else:
            self._count_failure(error)

    def _admit_or_refuse(self) -> None:
        remaining_seconds = self.retry_at - monotonic()
        if remaining_seconds > 0:
            raise FloorRefusedError(self.name, remaining_seconds)
        # One more failure opens it again.
        self.state = FloorState.CLOSED
        self.failures = self.failure_threshold - 1

    def _count_failure(self, error: BaseException) -> None:
        if isinstance(error, self.expected_exception):
            self.failures += 1
            if self.failures >= self.failure_threshold:
                self.state = FloorState.OPEN
                self.retry_at = monotonic() + self.recovery_timeout
