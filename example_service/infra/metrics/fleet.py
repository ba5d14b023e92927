"""Metrics of the connection between this process and the fleet, read at each scrape."""

from collections.abc import Iterable
from typing import Final, Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_CONNECTED: Final = "circuit_breaker_fleet_connected"
_PROCESSES: Final = "circuit_breaker_fleet_processes"


class Membership(Protocol):
    """The membership of a process in the fleet."""

    @property
    def is_connected(self) -> bool:
        """Whether this process is connected to the store."""
        ...

    @property
    def members(self) -> int:
        """How many processes belong to the fleet."""
        ...


class FleetMetrics(Collector):
    """A collector of the membership in the fleet."""

    def __init__(self) -> None:
        self._membership: Membership | None = None

    def watch(self, membership: Membership | None) -> None:
        """Export this membership from now on; None to export nothing."""
        self._membership = membership

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, which registration checks for name clashes."""
        return (_connected(), _processes())

    def collect(self) -> Iterable[Metric]:
        """Return the families with their current samples; none in a process without a fleet."""
        if (membership := self._membership) is None:
            return ()
        connected, processes = _connected(), _processes()
        connected.add_metric((), membership.is_connected)
        processes.add_metric((), membership.members if membership.is_connected else 1)
        return (connected, processes)


def _connected() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        _CONNECTED, "1 if the circuits are shared with the fleet, 0 if its store cannot be reached."
    )


def _processes() -> GaugeMetricFamily:
    return GaugeMetricFamily(_PROCESSES, "Processes that act as one circuit.")


fleet_metrics = FleetMetrics()
"""The collector of the membership of this process."""
