"""Opening by the share of failures among recent calls."""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from example_service.infra.resilience.rules.lockfree import EMPTY, taken
from example_service.infra.resilience.validation import check_count, check_number

if TYPE_CHECKING:
    from itertools import repeat

BUCKETS = 60
"""The number of buckets of a time window."""
MAX_WINDOW_CALLS = 1_000_000


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Opens the circuit when the share of failures in a window reaches a threshold.

    It works beside `failure_threshold`: the circuit opens when either limit is reached. The window
    bounds the memory, no matter how many calls there are.

    Example:
        Open when half of the calls of the last 30 seconds failed, but not before 20 calls:

        ```python
        from example_service.infra.resilience import CircuitBreaker, FailureRate

        rule = FailureRate(threshold=0.5, window_seconds=30.0)
        breaker = CircuitBreaker("search", failure_rate=rule)
        ```

    Attributes:
        threshold: Share of failures, above 0.0 and at most 1.0, that opens; reaching it exactly
            opens.
        window_seconds: Length of a window of time, in seconds. A result leaves it as soon as it
            is that old. Results within a sixtieth of the window are counted together and leave
            with the first of them.
        window_calls: Length of a window of calls: this many of the latest results, at most
            1,000,000. Give one of the two windows; with neither it is `window_calls=100`.
        minimum_calls: Results that the window must contain before the share counts.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range, both windows are given, or the window can never contain
            `minimum_calls`.
    """

    threshold: float = 0.5
    window_seconds: float | None = None
    window_calls: int | None = None
    minimum_calls: int = 20

    def __post_init__(self) -> None:
        """Refuse values with which the circuit could never open."""
        if self.window_seconds is not None and self.window_calls is not None:
            raise ValueError("FailureRate takes window_seconds or window_calls, not both")
        if self.window_seconds is None and self.window_calls is None:
            object.__setattr__(self, "window_calls", 100)
        check_number("FailureRate.threshold", self.threshold, at_most=1.0)
        check_count("FailureRate.minimum_calls", self.minimum_calls)
        if self.window_seconds is not None:
            check_number("FailureRate.window_seconds", self.window_seconds)
        if self.window_calls is not None:
            check_count("FailureRate.window_calls", self.window_calls, at_most=MAX_WINDOW_CALLS)
            if self.minimum_calls > self.window_calls:
                raise ValueError(
                    "FailureRate.minimum_calls must be at most window_calls "
                    f"({self.window_calls}), not {self.minimum_calls}"
                )

    def window(self, successes: "repeat[None]") -> "RateWindow":
        """Make an empty window.

        Args:
            successes: Counts every success of the circuit.
        """
        if self.window_calls is not None:
            return CallWindow(self, successes)
        return TimeWindow(self, successes)

    def is_reached(self, failures: int, calls: int) -> bool:
        """Whether this many failures among this many calls open the circuit."""
        # Divided, not multiplied: 7 / 100 is the number 0.07, but 0.07 * 100 is more than 7.
        return calls >= self.minimum_calls and failures / calls >= self.threshold

    def cause(self, failures: int, calls: int) -> str | None:
        """Why the circuit opens with these counts; None if it does not."""
        if self.is_reached(failures, calls):
            return f"{failures} of the last {calls} calls failed"
        return None


class _Window(ABC):
    """Adds the successes that were counted without the lock, when they are needed.

    Args:
        successes: Counts every success of the circuit.
    """

    __slots__ = ("_seen", "_successes")

    def __init__(self, successes: "repeat[None]") -> None:
        self._successes = successes
        self._seen = taken(successes)

    def catch_up(self) -> None:
        """Add the successes that were counted without the lock since the last time."""
        seen, self._seen = self._seen, taken(self._successes)
        self.add_successes(self._seen - seen)

    def skip_success(self) -> None:
        """Do not add the success that was just counted."""
        self._seen += 1

    @abstractmethod
    def add_successes(self, number: int) -> None:
        """Add successes that were counted without the lock."""


class CallWindow(_Window):
    """The results of the last `window_calls` calls of a closed circuit.

    Only failures are stored, each as the number of its call. A success lowers the share and cannot
    open the circuit, so it needs no lock, except while the window fills up to `minimum_calls`.

    Args:
        rate: The rule, with the size of the window.
        successes: Counts every success of the circuit.
    """

    __slots__ = ("_calls", "_failed", "_rate", "_size")

    def __init__(self, rate: FailureRate, successes: "repeat[None]" = EMPTY) -> None:
        super().__init__(successes)
        self._rate = rate
        self._size = rate.window_calls or 0
        self._calls = 0
        self._failed: deque[int] = deque()

    @property
    def lock_free_until(self) -> float:
        """Until when a success may be counted without the lock; minus infinity if it must not."""
        return inf if not self._failed or self._calls >= self._rate.minimum_calls else -inf

    def add_successes(self, number: int) -> None:
        """Add successes that were counted without the lock."""
        self._calls += number

    def add(self, now: float, *, failed: bool) -> str | None:
        """Add one result. Returns the cause if the share of failures is now too large."""
        self._calls += 1
        if failed:
            self._failed.append(self._calls)
        return self._rate.cause(*self.counts(now))

    def counts(self, now: float) -> tuple[int, int]:  # noqa: ARG002
        """Failures and calls in the window."""
        while self._failed and self._failed[0] <= self._calls - self._size:
            self._failed.popleft()
        return len(self._failed), min(self._calls, self._size)


class TimeWindow(_Window):
    """The results of the last `window_seconds` seconds of a closed circuit, in buckets.

    A bucket starts with a result and covers a sixtieth of the window. Its results leave the window
    together. Within a bucket a success needs no lock, except when it could open the circuit: while
    the window fills up to `minimum_calls`, and after an old bucket has left.

    Args:
        rate: The rule, with the length of the window.
        successes: Counts every success of the circuit.
    """

    __slots__ = ("_buckets", "_calls", "_failures", "_rate", "_seconds", "lock_free_until")

    lock_free_until: float
    """Until when a success may be counted without the lock; minus infinity if it must not."""

    def __init__(self, rate: FailureRate, successes: "repeat[None]" = EMPTY) -> None:
        super().__init__(successes)
        self._rate = rate
        self._seconds = rate.window_seconds or 0.0
        # Each bucket is [time of its first result, failures, calls].
        self._buckets: deque[list[float]] = deque()
        self._calls = 0
        self._failures = 0

    def add_successes(self, number: int) -> None:
        """Add successes that were counted without the lock, all to the newest bucket."""
        if number and self._buckets:
            self._buckets[-1][2] += number
            self._calls += number

    def add(self, now: float, *, failed: bool) -> str | None:
        """Add one result. Returns the cause if the share of failures is now too large."""
        self._forget(now)
        buckets = self._buckets
        if not buckets or now - buckets[-1][0] >= self._seconds / BUCKETS:
            buckets.append([now, 0, 0])
        buckets[-1][1] += failed
        buckets[-1][2] += 1
        self._failures += failed
        self._calls += 1
        self.lock_free_until = self._lock_free_until()
        return self._rate.cause(self._failures, self._calls)

    def counts(self, now: float) -> tuple[int, int]:
        """Failures and calls in the window."""
        self._forget(now)
        return self._failures, self._calls

    def _lock_free_until(self) -> float:
        bucket_ends = self._buckets[-1][0] + self._seconds / BUCKETS
        if not self._failures:
            return bucket_ends
        if self._calls < self._rate.minimum_calls:
            return -inf
        return min(bucket_ends, self._buckets[0][0] + self._seconds)

    def _forget(self, now: float) -> None:
        buckets = self._buckets
        while buckets and now - buckets[0][0] >= self._seconds:
            _, failures, calls = buckets.popleft()
            self._failures -= int(failures)
            self._calls -= int(calls)


RateWindow: TypeAlias = CallWindow | TimeWindow
