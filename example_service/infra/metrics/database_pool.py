"""Metrics of the database connections, read from the pool at each scrape."""

from collections.abc import Iterable
from typing import Final
from weakref import WeakSet

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.pool import Pool, QueuePool

_NAME: Final = "database_pool_connections"


class PoolMetrics(Collector):
    """A collector of the connections in database pools."""

    def __init__(self) -> None:
        self._pools: WeakSet[QueuePool] = WeakSet()

    def watch(self, pool: Pool) -> None:
        """Export the connections of a pool for as long as the pool exists.

        Pools other than `QueuePool` are ignored.
        """
        if isinstance(pool, QueuePool):
            self._pools.add(pool)

    def describe(self) -> Iterable[Metric]:
        """Return the metric family without samples, which registration checks for name clashes."""
        return (_family(),)

    def collect(self) -> Iterable[Metric]:
        """Return the metric family with its current samples, summed over all pools."""
        pools = list(self._pools)
        family = _family()
        family.add_metric(("in_use",), sum(pool.checkedout() for pool in pools))
        family.add_metric(("idle",), sum(pool.checkedin() for pool in pools))
        return (family,)


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(_NAME, "Connections to the database, by state.", labels=("state",))


pool_metrics = PoolMetrics()
"""The collector of the database connections of this process."""
