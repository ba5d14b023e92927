"""How long guarded calls take, for the breakers that ask for it.

Give a breaker this listener to time its calls:

    breaker = CircuitBreaker("payment", listeners=[CallDurations()])

Such a breaker reads the clock and takes its lock for every call. Other breakers pay nothing.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterable
from threading import RLock
from typing import Final, Literal

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from example_service.infra.metrics.circuit_breakers import label_text
from example_service.infra.metrics.duration_buckets import (
    DURATION_BOUNDS_SECONDS,
    cumulated,
    no_durations,
)
from example_service.infra.resilience import CallFailed, CallSucceeded

logger = logging.getLogger(__name__)

OTHER: Final = "other"
"""Name under which calls are counted once `max_names` is reached."""


class CallDurationMetrics(Collector):
    """The durations of calls by breaker and outcome; a collector, safe to use from any thread.

    Args:
        max_names: How many names of breakers are counted separately, for as long as the process
            runs. Each name takes 34 series. The calls of further breakers are counted as `other`,
            with one warning.
    """

    def __init__(self, *, max_names: int = 100) -> None:
        self._max_names = max_names
        # Reentrant: the garbage collector may end a guarded stream, and so count a call, while this
        # thread has the lock.
        self._lock = RLock()
        self._durations: dict[str, dict[str, list[float]]] = {}
        self._warned = False

    def observe(
        self, name: str, outcome: Literal["success", "failure"], duration_seconds: float
    ) -> None:
        """Count one call."""
        bucket = bisect_left(DURATION_BOUNDS_SECONDS, duration_seconds)
        with self._lock:
            series = (self._durations.get(name) or self._new_series(name))[outcome]
            series[bucket] += 1
            series[-1] += duration_seconds

    def describe(self) -> Iterable[Metric]:
        """The metric family without samples, for the check of its name at registration."""
        return (_durations_family(),)

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        family = _durations_family()
        with self._lock:
            copied = [
                ((label_text(name), outcome), list(counted))
                for name, outcomes in self._durations.items()
                for outcome, counted in outcomes.items()
            ]
        for labels, counted in copied:
            family.add_metric(labels, cumulated(counted), counted[-1])
        return (family,)

    def _new_series(self, name: str) -> dict[str, list[float]]:
        """The series of a name that has none yet. Requires the lock."""
        if len(self._durations) >= self._max_names:
            self._warn()
            name = OTHER
        # Both from the start, or Prometheus' increase() would miss the first failure.
        return self._durations.setdefault(
            name, {"success": no_durations(), "failure": no_durations()}
        )

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "Calls of more than %d circuit breakers are timed; those of further ones are "
                "exported under the name %r. Name breakers after dependencies, not after requests "
                "or users.",
                self._max_names,
                OTHER,
            )


class CallDurations:
    """A listener that exports how long the calls of its breakers take.

    `circuit_breaker_call_duration_seconds` has a series for each breaker's name and outcome,
    `success` or `failure`. A call that counts as a failure while it still runs is counted with the
    seconds that it has been running by then; one that ends as neither, or is refused, is not
    counted. One listener may serve many breakers, and several of them add up.

    Args:
        metrics: Where the durations go; to the metrics of this process if left out.
    """

    def __init__(self, metrics: CallDurationMetrics | None = None) -> None:
        self._metrics = call_duration_metrics if metrics is None else metrics

    def on_success(self, event: CallSucceeded, /) -> None:
        """Count a success."""
        self._metrics.observe(event.breaker_name, "success", event.duration_seconds)

    def on_failure(self, event: CallFailed, /) -> None:
        """Count a failure."""
        self._metrics.observe(event.breaker_name, "failure", event.duration_seconds)


def _durations_family() -> HistogramMetricFamily:
    return HistogramMetricFamily(
        "circuit_breaker_call_duration_seconds",
        "Seconds that guarded calls took, of the breakers that ask for it.",
        labels=("name", "outcome"),
    )


call_duration_metrics = CallDurationMetrics()
"""The calls of this process."""
