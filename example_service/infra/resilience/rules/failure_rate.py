"""Opening by the share of failures among recent calls."""

from collections import deque
from dataclasses import dataclass

from example_service.infra.resilience.rules.circuit_state import ResultWindow
from example_service.infra.resilience.validation import count_error, number_error

# Results that come within a sixtieth of the window after one another are counted as one moment.
MOMENTS = 60
LARGEST_WINDOW_CALLS = 1_000_000


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Opens the circuit when the share of failures in a window reaches a threshold.

    It works beside the rule of failures in a row; whichever is reached first opens. Memory is
    constant and every call costs the same, whatever the traffic.

    Attributes:
        threshold: Share of failures, above 0.0 and at most 1.0, that opens; reaching it exactly
            opens.
        window_seconds: Length of a window of time, in seconds; a result leaves it as soon as it
            is that old. Results that come within a sixtieth of the window are taken together and
            leave with the first of them.
        window_calls: Length of a window of calls: the last so many results, at most 1,000,000.
            Give one of the two windows; with neither it is `window_calls=100`.
        minimum_calls: Results that the window must hold before the share counts.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range, both windows are given, or the window can never hold
            `minimum_calls`.
    """

    threshold: float = 0.5
    window_seconds: float | None = None
    window_calls: int | None = None
    minimum_calls: int = 20

    def __post_init__(self) -> None:
        """Refuse values under which nothing could ever open."""
        if self.window_seconds is not None and self.window_calls is not None:
            raise ValueError("FailureRate takes window_seconds or window_calls, not both")
        if self.window_seconds is None and self.window_calls is None:
            object.__setattr__(self, "window_calls", 100)
        if error := (
            number_error("FailureRate.threshold", self.threshold, at_most=1.0)
            or count_error("FailureRate.minimum_calls", self.minimum_calls)
            or (
                self.window_seconds is not None
                and number_error("FailureRate.window_seconds", self.window_seconds)
            )
            or (
                self.window_calls is not None
                and count_error("FailureRate.window_calls", self.window_calls)
            )
        ):
            raise error
        if self.window_calls is not None and self.window_calls > LARGEST_WINDOW_CALLS:
            raise ValueError(
                f"FailureRate.window_calls must be at most {LARGEST_WINDOW_CALLS}, a byte each, "
                f"not {self.window_calls}"
            )
        if self.window_calls is not None and self.minimum_calls > self.window_calls:
            raise ValueError(
                f"FailureRate.minimum_calls must be at most window_calls ({self.window_calls}), "
                f"not {self.minimum_calls}"
            )

    def window(self) -> ResultWindow:
        """An empty window."""
        if self.window_calls is not None:
            return CallWindow(self.window_calls)
        return TimeWindow(self.window_seconds or 0.0)

    def is_reached(self, failures: int, calls: int) -> bool:
        """Whether so many failures among so many calls open the circuit."""
        # Divided, not multiplied: 7 / 100 is the number that 0.07 is, 0.07 * 100 is more than 7.
        return calls >= self.minimum_calls and failures / calls >= self.threshold


class CallWindow:
    """The last so many results, one byte each.

    Args:
        size: How many results it holds.
    """

    __slots__ = ("_calls", "_failures", "_next", "_results")

    def __init__(self, size: int) -> None:
        self._results = bytearray(size)
        self._next = 0
        self._calls = 0
        self._failures = 0

    def record(self, now: float, *, failed: bool) -> None:  # noqa: ARG002
        """Add one result; it takes the place of the oldest when the window is full."""
        self._failures += failed - self._results[self._next]
        self._results[self._next] = failed
        self._next = (self._next + 1) % len(self._results)
        self._calls = min(self._calls + 1, len(self._results))

    def counts(self, now: float) -> tuple[int, int]:  # noqa: ARG002
        """Failures and calls in the window."""
        return self._failures, self._calls


class TimeWindow:
    """The results of the last so many seconds, counted by moment.

    Args:
        seconds: How old a result must be to have left the window.
    """

    __slots__ = ("_calls", "_failures", "_moments", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Each moment is [time of its first result, failures, calls].
        self._moments: deque[list[float]] = deque()
        self._calls = 0
        self._failures = 0

    def record(self, now: float, *, failed: bool) -> None:
        """Add one result."""
        self._forget(now)
        moments = self._moments
        if not moments or now - moments[-1][0] >= self._seconds / MOMENTS:
            moments.append([now, 0, 0])
        moments[-1][1] += failed
        moments[-1][2] += 1
        self._calls += 1
        self._failures += failed

    def counts(self, now: float) -> tuple[int, int]:
        """Failures and calls in the window."""
        self._forget(now)
        return self._failures, self._calls

    def _forget(self, now: float) -> None:
        moments = self._moments
        while moments and now - moments[0][0] >= self._seconds:
            _, failures, calls = moments.popleft()
            self._failures -= int(failures)
            self._calls -= int(calls)
