"""The last five minutes of each circuit: its states, and its calls in buckets of five seconds.

The history is kept here rather than in the page, so that it is there when someone opens the page in
the middle of an outage. It is fed with the reports that also go to the page, and costs about 8 kB a
circuit.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeAlias

from example_service.api.breakers.views import BreakerMetrics, Transition
from example_service.infra.resilience import CircuitState

WINDOW_SECONDS: Final = 300
BUCKET_SECONDS: Final = 5

Look: TypeAlias = str
"""What a circuit looks like: the name of a mode set by hand, otherwise its state."""

Bucket: TypeAlias = list[int]
"""The time at which it begins, then the calls that succeeded, failed and were refused."""

_BUCKETS: Final = WINDOW_SECONDS // BUCKET_SECONDS + 1
_STAYS: Final = 64
_WAITS: Final = 8
_OUTAGE: Final = frozenset({CircuitState.OPEN.value, CircuitState.HALF_OPEN.value})
_STATES: Final = frozenset(state.value for state in CircuitState)
_SAME_MOMENT_SECONDS: Final = 0.5


class CircuitHistory:
    """What one circuit did.

    Attributes:
        buckets: Its calls, the oldest first; a bucket without calls is left out.
        stays: What it looked like from which time on, the oldest first.
        since: When the present look began; of an outage, when the circuit left its closed state.
        spared: Calls refused since then.
        waits: The open waits of the present outage, in seconds.
        seen_at: When it was last part of a report.
    """

    __slots__ = (
        "_ends",
        "_totals",
        "buckets",
        "seen_at",
        "since",
        "spared",
        "stays",
        "waits",
    )

    def __init__(self, look: Look, now: float, totals: tuple[int, int, int]) -> None:
        self.buckets: deque[Bucket] = deque(maxlen=_BUCKETS)
        self.stays: deque[tuple[float, Look]] = deque([(now, look)], maxlen=_STAYS)
        self.since = now
        self.spared = 0
        self.waits: deque[float] = deque(maxlen=_WAITS)
        self.seen_at = now
        self._totals = totals
        self._ends: dict[str, float] = {}

    @property
    def look(self) -> Look:
        """What the circuit looks like now."""
        return self.stays[-1][1]

    def enter(self, look: Look, at: float) -> None:
        """Note what the circuit looks like from a time on."""
        before = self.look
        if look == before:
            return
        if not {before, look} <= _OUTAGE:
            self.since = at
            self.spared = 0
            self.waits.clear()
        self.stays.append((max(at, self.stays[-1][0]), look))

    def count(self, totals: tuple[int, int, int], now: float, *, is_comparable: bool) -> None:
        """Add the calls since the last report to the present bucket.

        Args:
            totals: All calls so far that succeeded, failed and were refused.
            now: The time of the report.
            is_comparable: Whether the same workers reported as the last time; if not, the
                difference says nothing about calls.
        """
        # Totals are smaller than before after a reset; then all of them are new.
        calls = [
            new - old if new >= old else new for old, new in zip(self._totals, totals, strict=True)
        ]
        self._totals = totals
        self.seen_at = now
        if not is_comparable or not any(calls):
            return
        self.spared += calls[2]
        begins = int(now // BUCKET_SECONDS * BUCKET_SECONDS)
        if not self.buckets or self.buckets[-1][0] != begins:
            self.buckets.append([begins, 0, 0, 0])
        bucket = self.buckets[-1]
        for index, count in enumerate(calls, start=1):
            bucket[index] += count

    def end_of(self, what: str, seconds: float | None, now: float) -> float | None:
        """The time at which a wait or a mode ends, the same one in every report.

        Computed from the seconds left it would differ a little each time, and every such difference
        would be sent to every page.
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
        breakers: Mapping[str, tuple[Look, BreakerMetrics | None]],
        transitions: Iterable[Transition],
        workers: list[int],
        now: float,
    ) -> None:
        """Add one report.

        Args:
            breakers: What each circuit looks like, with its metrics if there is a breaker now.
            transitions: The last changes of state, the newest first.
            workers: The workers that reported; empty if some did not answer.
            now: The time of the report, in seconds since 1970.
        """
        is_comparable = bool(workers) and workers == self._workers
        for name, (_, metrics) in breakers.items():
            totals = _totals(metrics)
            if name not in self.circuits:
                # What a new breaker has counted is new, unless everything is.
                counted = (0, 0, 0) if self._workers is not None else totals
                self.circuits[name] = CircuitHistory("closed", now, counted)
        # With several workers, the changes are those of single ones, and not of the whole.
        is_alone = len(workers) == 1
        if not is_alone:
            self._enter(breakers, now)
        self._note_transitions(transitions, is_alone=is_alone)
        self._enter(breakers, now)
        for name, (_, metrics) in breakers.items():
            self.circuits[name].count(_totals(metrics), now, is_comparable=is_comparable)
        if workers:
            self._workers = workers
        for name in [n for n, one in self.circuits.items() if one.seen_at < now - WINDOW_SECONDS]:
            del self.circuits[name]

    def _enter(
        self, breakers: Mapping[str, tuple[Look, BreakerMetrics | None]], now: float
    ) -> None:
        for name, (look, _) in breakers.items():
            self.circuits[name].enter(look, now)

    def _note_transitions(self, transitions: Iterable[Transition], *, is_alone: bool) -> None:
        new = [one for one in transitions if one.at > self._last_transition]
        for transition in reversed(new):
            self._last_transition = transition.at
            one = self.circuits.get(transition.breaker_name)
            if one is None:
                continue
            at = epoch(transition.at)
            if is_alone and one.look in _STATES:
                one.enter(transition.to_state.value, at)
            if transition.to_state is CircuitState.OPEN and transition.wait_seconds is not None:
                if not is_alone:
                    one.waits.clear()
                one.waits.append(round(transition.wait_seconds, 1))


def epoch(time: str) -> float:
    """A time of ISO 8601 in seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def _totals(metrics: BreakerMetrics | None) -> tuple[int, int, int]:
    if metrics is None:
        return 0, 0, 0
    return metrics.total_successes, metrics.total_failures, metrics.total_rejections
