"""Durations of guarded calls, for breakers that have the listener `CallDurations`.

    breaker = CircuitBreaker("payment", listeners=[CallDurations()])

A breaker with this listener reads the clock and takes its lock on every call. Other breakers have
no extra cost.
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
"""The name under which the calls of further breakers are counted once `max_names` is reached."""


class CallDurationMetrics(Collector):
    """A collector of call durations by breaker and outcome. Thread-safe.

    Args:
        max_names: The most breaker names that get their own series. Each name has 34 series, which
            are kept until the process ends. The calls of further breakers are counted as `other`,
            and one warning is logged.
    """

    def __init__(self, *, max_names: int = 100) -> None:
        self._max_names = max_names
        # Reentrant, because the garbage collector may end a guarded stream, which counts a call,
        # while this thread holds the lock.
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
        """Return the metric family without samples, which registration checks for name clashes."""
        return (_durations_family(),)

    def collect(self) -> Iterable[Metric]:
        """Return the metric family with its current samples."""
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
        """Create the series of a name, or return those of `other`. Requires the lock."""
        if len(self._durations) >= self._max_names:
            self._warn()
            name = OTHER
        # Both outcomes start at 0, otherwise Prometheus' increase() would miss the first failure.
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
    """A listener that exports the durations of calls.

    The histogram `circuit_breaker_call_duration_seconds` has a series for each breaker name and
    outcome (`success` or `failure`). A call that becomes a failure while it is still running is
    counted with its duration so far. Refused calls, and calls that neither succeed nor fail, are
    not counted. Several breakers can share one listener.

    Args:
        metrics: The collector that receives the durations. Defaults to the one of this process.
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
        "Duration of guarded calls in seconds, of breakers with the listener CallDurations.",
        labels=("name", "outcome"),
    )


call_duration_metrics = CallDurationMetrics()
"""The collector of the calls in this process."""
