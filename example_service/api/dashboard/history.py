"""The last five minutes of each circuit: its states, and its calls in buckets of five seconds.

The service keeps the history, so that a page opened in the middle of an outage can show it. The
history is built from the reports that also go to the page, and takes about 8 kB per circuit.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from example_service.api.breakers.views import BreakerMetrics, Transition
from example_service.infra.resilience import CircuitState, Mode

WINDOW_SECONDS: Final = 300
BUCKET_SECONDS: Final = 5

Status: TypeAlias = str
"""The mode that an operator has set for a circuit, otherwise the circuit's state."""

Bucket: TypeAlias = list[int]
"""Start in seconds since the epoch, then the numbers of successful, failed and refused calls."""

_BUCKETS: Final = WINDOW_SECONDS // BUCKET_SECONDS + 1
_PERIODS: Final = 64
_WAITS: Final = 8
_OUTAGE: Final = frozenset({CircuitState.OPEN.value, CircuitState.HALF_OPEN.value})
_REFUSING: Final = _OUTAGE | {Mode.FORCED_OPEN.value}
_STATES: Final = frozenset(state.value for state in CircuitState)
_SAME_MOMENT_SECONDS: Final = 0.5


class Past(NamedTuple):
    """A period in which a circuit refused calls.

    Attributes:
        since: When it began, in seconds since the epoch.
        until: When it ended.
        spared: The number of calls refused in it.
        reason: Why they were refused.
    """

    since: float
    until: float
    spared: int
    reason: str | None


class CircuitHistory:
    """The history of one circuit. All times are in seconds since the epoch.

    Attributes:
        buckets: The calls, oldest first. Buckets without calls are left out.
        periods: The statuses of the circuit with the time at which each began, oldest first.
        since: When the current status began. During an outage, when the circuit first opened.
        spared: Calls refused since `since`.
        past: The last period in which the circuit refused calls, once it has ended.
        reason: Why the circuit refuses calls, or refused them the last time.
        waits: The open periods of the current outage, in seconds.
        seen_at: The time of the last report that contained the circuit.
    """

    __slots__ = (
        "_ends",
        "_refused",
        "_totals",
        "buckets",
        "past",
        "periods",
        "reason",
        "seen_at",
        "since",
        "spared",
        "waits",
    )

    def __init__(self, status: Status, now: float, totals: tuple[int, int, int]) -> None:
        self.buckets: deque[Bucket] = deque(maxlen=_BUCKETS)
        self.periods: deque[tuple[float, Status]] = deque([(now, status)], maxlen=_PERIODS)
        self.since = now
        self.spared = 0
        self.past: Past | None = None
        self.reason: str | None = None
        self._refused = 0
        self.waits: deque[float] = deque(maxlen=_WAITS)
        self.seen_at = now
        self._totals = totals
        self._ends: dict[str, float] = {}

    @property
    def status(self) -> Status:
        """The current status of the circuit."""
        return self.periods[-1][1]

    def enter(self, status: Status, at: float) -> None:
        """Record that the circuit has this status since `at`."""
        before = self.status
        if status == before:
            return
        if not {before, status} <= _OUTAGE:
            if before in _REFUSING:
                # The calls refused since the last report belong to the period that has ended.
                self.past = Past(self.since, at, self.spared + self._refused, self.reason)
                self._refused = 0
            self.since = at
            self.spared = 0
            self.waits.clear()
        self.periods.append((max(at, self.periods[-1][0]), status))

    def count(self, totals: tuple[int, int, int], now: float, *, is_comparable: bool) -> None:
        """Add the calls since the last report to the current bucket, before the status changes.

        Args:
            totals: The total numbers of successful, failed and refused calls.
            now: The time of the report.
            is_comparable: Whether the last report came from the same workers. If it did not, the
                difference between the totals is not a number of calls, and nothing is added.
        """
        # A reset sets the totals to zero, so all calls of a smaller total are new.
        calls = [
            new - old if new >= old else new for old, new in zip(self._totals, totals, strict=True)
        ]
        self._totals = totals
        self.seen_at = now
        if not is_comparable or not any(calls):
            return
        self._refused = calls[2]
        begins = int(now // BUCKET_SECONDS * BUCKET_SECONDS)
        if not self.buckets or self.buckets[-1][0] != begins:
            self.buckets.append([begins, 0, 0, 0])
        bucket = self.buckets[-1]
        for index, count in enumerate(calls, start=1):
            bucket[index] += count

    def settle(self, reason: str | None) -> None:
        """Add the refused calls of the report to the current status, if it refuses calls.

        Args:
            reason: Why it refuses them.
        """
        if self.status in _REFUSING:
            self.spared += self._refused
            self.reason = reason
        self._refused = 0

    def end_of(self, what: str, seconds: float | None, now: float) -> float | None:
        """Return the time at which a wait or a mode ends.

        The result is the same for every report: computed from the seconds left, it would differ
        slightly each time, and each difference would be sent to every page.
        """
        if not seconds:
            self._ends.pop(what, None)
            return None
        end = now + seconds
        if abs(end - self._ends.get(what, 0.0)) > _SAME_MOMENT_SECONDS:
            self._ends[what] = round(end, 2)
        return self._ends[what]


class History:
    """The histories of all circuits, by name."""

    def __init__(self) -> None:
        self.circuits: dict[str, CircuitHistory] = {}
        self._workers: list[int] | None = None
        self._last_transition = ""

    def add(
        self,
        breakers: Mapping[str, tuple[Status, BreakerMetrics | None]],
        transitions: Iterable[Transition],
        workers: list[int],
        now: float,
    ) -> None:
        """Add one report.

        Args:
            breakers: The status of each circuit, and its metrics if there is a breaker.
            transitions: The most recent changes of state, newest first.
            workers: Process ids of the workers that reported. Empty if some did not.
            now: The time of the report, in seconds since the epoch.
        """
        is_comparable = bool(workers) and workers == self._workers
        for name, (_, metrics) in breakers.items():
            totals = _totals(metrics)
            if name not in self.circuits:
                # The calls of a new breaker are all new, except in the very first report.
                counted = (0, 0, 0) if self._workers is not None else totals
                self.circuits[name] = CircuitHistory("closed", now, counted)
            self.circuits[name].count(totals, now, is_comparable=is_comparable)
        # With several workers, a transition belongs to one worker's circuit, not to the combined
        # state.
        is_alone = len(workers) == 1
        if not is_alone:
            self._enter(breakers, now)
        self._note_transitions(transitions, is_alone=is_alone)
        self._enter(breakers, now)
        for name, (_, metrics) in breakers.items():
            self.circuits[name].settle(None if metrics is None else _reason(metrics))
        if workers:
            self._workers = workers
        oldest = now - WINDOW_SECONDS
        for name in [name for name, circuit in self.circuits.items() if circuit.seen_at < oldest]:
            del self.circuits[name]

    def _enter(
        self, breakers: Mapping[str, tuple[Status, BreakerMetrics | None]], now: float
    ) -> None:
        for name, (status, _) in breakers.items():
            self.circuits[name].enter(status, now)

    def _note_transitions(self, transitions: Iterable[Transition], *, is_alone: bool) -> None:
        new = [transition for transition in transitions if transition.at > self._last_transition]
        for transition in reversed(new):
            self._last_transition = transition.at
            circuit = self.circuits.get(transition.breaker_name)
            if circuit is None:
                continue
            at = epoch(transition.at)
            if is_alone and circuit.status in _STATES:
                circuit.enter(transition.to_state.value, at)
            if transition.to_state is CircuitState.OPEN and transition.wait_seconds is not None:
                if not is_alone:
                    circuit.waits.clear()
                circuit.waits.append(round(transition.wait_seconds, 1))


def epoch(time: str) -> float:
    """Convert a time in ISO 8601 format to seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()


def _reason(metrics: BreakerMetrics) -> str | None:
    return metrics.reason if metrics.mode is None else metrics.mode.reason


def _totals(metrics: BreakerMetrics | None) -> tuple[int, int, int]:
    if metrics is None:
        return 0, 0, 0
    return metrics.total_successes, metrics.total_failures, metrics.total_rejections
