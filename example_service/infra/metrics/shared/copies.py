"""Copies a worker's metrics to files that the other workers can read."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import values
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from example_service.core.background import KeepGoing

logger = logging.getLogger(__name__)

# How the gauges of running workers are combined. Those of ended workers are left out.
_GAUGE_MODES: Final = {
    "circuit_breaker_state": "livemax",
    "circuit_breaker_window_failure_rate": "livemax",
    "circuit_breaker_window_calls": "livemax",
    "circuit_breaker_window_threshold": "livemax",
    "circuit_breaker_fleet_connected": "livemin",
    "circuit_breaker_fleet_processes": "livemax",
}
_DEFAULT_GAUGE_MODE: Final = "livesum"


class SharedMetrics:
    """Copies the metrics of collectors to the files that the workers share.

    Counters in the files never decrease. If a breaker is replaced by a new one with the same name,
    its counters start again at 0, and the copies continue from their last values. A gauge that its
    collector no longer returns becomes 0. Not thread-safe.

    Args:
        collectors: The collectors whose counters, gauges and histograms are copied.
        value_class: The prometheus_client class that stores a value. Defaults to that of this
            process.
        max_series: The most series that are copied. Further ones are left out, and one warning is
            logged. A series keeps its place in the file until the workers end.
    """

    def __init__(
        self,
        collectors: Iterable[Collector],
        *,
        value_class: Any = None,
        max_series: int = 10_000,
    ) -> None:
        self.collectors = tuple(collectors)
        self._value_class = value_class or values.ValueClass
        self._max_series = max_series
        self._series: dict[tuple[str, ...], _Counter | _Gauge] = {}
        self._gauges: list[_Gauge] = []
        self._keep_going = KeepGoing(logger, "The metrics of this worker could not be shared")
        self._warned = False

    def copy(self) -> None:
        """Write every value that has changed since the last copy."""
        for gauge in self._gauges:
            gauge.shown = False
        for collector in self.collectors:
            for family in collector.collect():
                for name, labels, value in _stored_samples(family):
                    key = (name, *labels.values())
                    series = self._series.get(key) or self._added(key, family, name, labels)
                    if series is not None:
                        series.write(value)
        for gauge in self._gauges:
            if not gauge.shown:
                gauge.write(0)

    def try_copy(self) -> None:
        """Copy, and log the first of several failures instead of raising.

        The service must answer requests even if, for example, the disk is full.
        """
        with self._keep_going:
            self.copy()

    def clear_gauges(self) -> None:
        """Set every gauge to 0, because this worker is about to end."""
        for gauge in self._gauges:
            gauge.write(0)

    def _added(
        self, key: tuple[str, ...], family: Metric, name: str, labels: dict[str, str]
    ) -> "_Counter | _Gauge | None":
        if len(self._series) >= self._max_series:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "More than %d metric series in one worker; further ones are not exported. "
                    "Name breakers after dependencies, not after requests or users.",
                    self._max_series,
                )
            return None
        stored = self._value_class(
            family.type,
            family.name,
            name,
            tuple(labels),
            tuple(labels.values()),
            family.documentation,
            multiprocess_mode=_GAUGE_MODES.get(family.name, _DEFAULT_GAUGE_MODE),
        )
        series = self._series[key] = _Gauge(stored) if family.type == "gauge" else _Counter(stored)
        if isinstance(series, _Gauge):
            self._gauges.append(series)
        return series


class _Gauge:
    """A stored value that equals the value of its collector."""

    __slots__ = ("_stored", "_value", "shown")

    def __init__(self, stored: Any) -> None:
        self._stored = stored
        self._value = stored.get()
        self.shown = True

    def write(self, value: float) -> None:
        self.shown = True
        if value != self._value:
            self._value = value
            self._stored.set(value)


class _Counter:
    """A stored value that grows by the same amounts as the value of its collector."""

    __slots__ = ("_base", "_stored", "_value")

    def __init__(self, stored: Any) -> None:
        self._stored = stored
        # This is not 0 if an earlier worker had the same process id.
        self._base = stored.get()
        self._value = 0.0

    def write(self, value: float) -> None:
        if value == self._value:
            return
        if value < self._value:
            self._base += self._value
        self._value = value
        self._stored.set(self._base + value)


def _stored_samples(family: Metric) -> Iterator[tuple[str, dict[str, str], float]]:
    """The samples of a family in the format of prometheus_client's files.

    In the files, buckets are not cumulative and there is no total count. The library computes both
    when it reads the files.
    """
    if family.type != "histogram":
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
        return
    below = 0.0
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            yield sample.name, sample.labels, sample.value - below
            below = sample.value
        elif sample.name.endswith("_count"):
            below = 0.0
        else:
            yield sample.name, sample.labels, sample.value
