"""HTTP request figures, counted in plain lists and turned into metrics when somebody asks.

A native histogram costs a lock for each figure that a request touches. One event loop answers all
requests of a process, so its figures need none: `finished` is a dictionary look-up, a bisection and
two additions.
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
"""Label of an unknown method, and of the route of any request once `max_series` is reached."""

_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
)


class RequestMetrics(Collector):
    """Counts HTTP requests and times them; a collector to register where it shall be seen.

    Call it from one event loop's thread: it takes no lock.

    Args:
        max_series: How many combinations of method, route and status are told apart.
    """

    __slots__ = ("_figures", "_in_flight", "_max_series")

    def __init__(self, *, max_series: int = 2000) -> None:
        self._max_series = max_series
        self._in_flight = 0
        # By method, route and status; `duration_buckets` says what the numbers are.
        self._figures: dict[tuple[str, str, int], list[float]] = {}

    def started(self) -> None:
        """Count a request as in flight; `finished` must follow, whatever happens to it."""
        self._in_flight += 1

    def finished(self, method: str, route: str, status: int, duration_seconds: float) -> None:
        """Count a request that `started` announced.

        Args:
            method: The method as sent; unknown ones share one label.
            route: The template of the route that answered, never the path as sent: each distinct
                text is a set of series of its own.
            status: The status code as sent.
            duration_seconds: From the request's arrival to the end of its response.
        """
        self._in_flight -= 1
        figures = self._figures.get((method, route, status))
        if figures is None:
            figures = self._other_figures(method, route, status)
        figures[bisect_left(DURATION_BOUNDS_SECONDS, duration_seconds)] += 1
        figures[-1] += duration_seconds

    def describe(self) -> Iterable[Metric]:
        """The metric families, without figures: what the names are checked by at registration."""
        return (_requests_family(), _durations_family(), _in_flight_family())

    def collect(self) -> Iterable[Metric]:
        """The figures as they are now."""
        requests, durations, in_flight = (
            _requests_family(),
            _durations_family(),
            _in_flight_family(),
        )
        by_route: dict[tuple[str, str], list[float]] = {}
        # Copies, because requests go on in another thread.
        copied = [(key, figures.copy()) for key, figures in list(self._figures.items())]
        for (method, route, status), figures in copied:
            requests.add_metric((method, route, str(status)), sum(figures[:-1]))
            known = by_route.get((method, route))
            by_route[method, route] = (
                figures if known is None else [a + b for a, b in zip(known, figures, strict=True)]
            )
        for labels, figures in by_route.items():
            durations.add_metric(labels, cumulated(figures), figures[-1])
        in_flight.add_metric((), self._in_flight)
        return (requests, durations, in_flight)

    def _other_figures(self, method: str, route: str, status: int) -> list[float]:
        """The figures of a combination that is new, or has no figures of its own."""
        key = (method if method in _METHODS else OTHER, route, status)
        if key not in self._figures and len(self._figures) >= self._max_series:
            key = (key[0], OTHER, status)
        return self._figures.setdefault(key, no_durations())


def _requests_family() -> CounterMetricFamily:
    return CounterMetricFamily(
        "http_requests_total",
        "HTTP requests answered, by the template of their route.",
        labels=("method", "route", "status"),
    )


def _durations_family() -> HistogramMetricFamily:
    return HistogramMetricFamily(
        "http_request_duration_seconds",
        "Seconds from the arrival of an HTTP request to the end of its response.",
        labels=("method", "route"),
    )


def _in_flight_family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "http_requests_in_flight", "HTTP requests that are being answered.", labels=()
    )


request_metrics = RequestMetrics()
"""The requests of this process."""
