"""The floor: the least code that could be called a circuit breaker.

It checks the state, sets the count back on success and counts on failure. There is no lock, no
generation, no total, no metric, no limit on probes and no listener: whatever a complete breaker
takes longer than this one is the price of those. Each form is written out in full, because one
more method call per use would already cost a sixth of the time.
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
    """The two states that the floor knows; a probe simply finds it closed."""

    CLOSED = "closed"
    OPEN = "open"


# Looked up on every call: as a module's name it costs a third of what the class' attribute does.
_OPEN = FloorState.OPEN


class FloorRefusedError(Exception):
    """A call was refused; who refused and for how long is carried, nothing is formatted.

    Args:
        breaker_name: The breaker that refused.
        retry_after: Seconds until a call is let through again.
    """

    def __init__(self, breaker_name: str, retry_after: float) -> None:
        self.breaker_name = breaker_name
        self.retry_after = retry_after


class FloorBreaker:
    """Opens after failures in a row, refuses for a while, then lets calls through again.

    Args:
        name: Carried by the refusal.
        failure_threshold: Failures in a row that open it.
        recovery_timeout: Seconds of refusing before the next call is let through.
        expected_exception: What counts as a failure.
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
