"""Metrics of HTTP requests, counted in plain lists.

The histograms of prometheus_client take several locks for each observation. Here, one event loop
handles all requests of a process, so no lock is needed: `finished` is a dictionary lookup, a
bisection and two additions.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from example_service.infra.metrics.duration_buckets import (
    DURATION_BOUNDS_SECONDS,
    cumulated,
    no_durations,
)

OTHER: Final = "other"
"""The label of an unknown method, and of further routes once `max_series` is reached."""

_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
)


class RequestMetrics(Collector):
    """A collector that counts and times HTTP requests.

    It takes no lock, so requests must only be counted in the thread of the event loop.

    Args:
        max_series: The most combinations of method, route and status that are counted separately.
    """

    __slots__ = ("_durations", "_in_flight", "_max_series")

    def __init__(self, *, max_series: int = 2000) -> None:
        self._max_series = max_series
        self._in_flight = 0
        # By method, route and status. `duration_buckets` describes the lists.
        self._durations: dict[tuple[str, str, int], list[float]] = {}

    def started(self) -> None:
        """Count a request as in flight. `finished` must be called when it ends for any reason."""
        self._in_flight += 1

    def finished(self, method: str, route: str, status: int, duration_seconds: float) -> None:
        """Count a request that has ended.

        Args:
            method: The method of the request. Unknown methods share one label.
            route: The template of the route, never the path, because each distinct text adds a set
                of series.
            status: The status code of the response.
            duration_seconds: The time from the arrival of the request to the end of the response.
        """
        self._in_flight -= 1
        series = self._durations.get((method, route, status))
        if series is None:
            series = self._other_series(method, route, status)
        series[bisect_left(DURATION_BOUNDS_SECONDS, duration_seconds)] += 1
        series[-1] += duration_seconds

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, which registration checks for name clashes."""
        return (_requests_family(), _durations_family(), _in_flight_family())

    def collect(self) -> Iterable[Metric]:
        """Return the metric families with their current samples."""
        requests, durations, in_flight = (
            _requests_family(),
            _durations_family(),
            _in_flight_family(),
        )
        by_route: dict[tuple[str, str], list[float]] = {}
        # A scrape runs in another thread than the requests, which keep changing the lists.
        copied = [(key, series.copy()) for key, series in list(self._durations.items())]
        for (method, route, status), series in copied:
            requests.add_metric((method, route, str(status)), sum(series[:-1]))
            known = by_route.get((method, route))
            by_route[method, route] = (
                series if known is None else [a + b for a, b in zip(known, series, strict=True)]
            )
        for labels, series in by_route.items():
            durations.add_metric(labels, cumulated(series), series[-1])
        in_flight.add_metric((), self._in_flight)
        return (requests, durations, in_flight)

    def _other_series(self, method: str, route: str, status: int) -> list[float]:
        """Create the series of a combination, or return those of `other` if there are too many."""
        key = (method if method in _METHODS else OTHER, route, status)
        if key not in self._durations and len(self._durations) >= self._max_series:
            key = (key[0], OTHER, status)
        return self._durations.setdefault(key, no_durations())


def _requests_family() -> CounterMetricFamily:
    return CounterMetricFamily(
        "http_requests_total",
        "Completed HTTP requests, by route template.",
        labels=("method", "route", "status"),
    )


def _durations_family() -> HistogramMetricFamily:
    return HistogramMetricFamily(
        "http_request_duration_seconds",
        "Seconds from the arrival of an HTTP request to the end of its response.",
        labels=("method", "route"),
    )


def _in_flight_family() -> GaugeMetricFamily:
    return GaugeMetricFamily("http_requests_in_flight", "HTTP requests in progress.", labels=())


request_metrics = RequestMetrics()
"""The collector of the requests to this process."""
