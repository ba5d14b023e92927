"""Whether this process takes part in the fleet, read when it is scraped."""

from collections.abc import Iterable
from typing import Final, Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_CONNECTED: Final = "circuit_breaker_fleet_connected"
_PROCESSES: Final = "circuit_breaker_fleet_processes"


class Membership(Protocol):
    """What connects a process to the fleet."""

    @property
    def is_connected(self) -> bool:
        """Whether the store can be reached."""
        ...

    @property
    def members(self) -> int:
        """How many processes take part."""
        ...


class FleetMetrics(Collector):
    """Shows the membership that it watches; a collector to register."""

    def __init__(self) -> None:
        self._membership: Membership | None = None

    def watch(self, membership: Membership | None) -> None:
        """Show this membership from now on; None for none."""
        self._membership = membership

    def describe(self) -> Iterable[Metric]:
        """The metric families, without figures."""
        return (_connected(), _processes())

    def collect(self) -> Iterable[Metric]:
        """The figures as they are now; none in a process without a fleet."""
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
"""The membership of this process."""
