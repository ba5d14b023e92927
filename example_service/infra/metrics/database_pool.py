"""The connections to the database, read from the pool at each scrape."""

from collections.abc import Iterable
from typing import Final
from weakref import WeakSet

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.pool import Pool, QueuePool

_NAME: Final = "database_pool_connections"


class PoolMetrics(Collector):
    """Shows the connections of the pools that it watches; a collector to register."""

    def __init__(self) -> None:
        self._pools: WeakSet[QueuePool] = WeakSet()

    def watch(self, pool: Pool) -> None:
        """Show the connections of a pool, for as long as it exists.

        A pool that keeps no queue of connections has nothing to show.
        """
        if isinstance(pool, QueuePool):
            self._pools.add(pool)

    def describe(self) -> Iterable[Metric]:
        """The metric family without samples, for the check of its name at registration."""
        return (_family(),)

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now, summed over the pools."""
        pools = list(self._pools)
        family = _family()
        family.add_metric(("in_use",), sum(pool.checkedout() for pool in pools))
        family.add_metric(("idle",), sum(pool.checkedin() for pool in pools))
        return (family,)


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        _NAME, "Connections to the database, by what they do.", labels=("state",)
    )


pool_metrics = PoolMetrics()
"""The connections of this process."""
