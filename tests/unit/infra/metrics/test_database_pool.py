"""The metric of database connections."""

import gc

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool, QueuePool

from example_service.infra.metrics.database_pool import PoolMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    """The registry of the metric."""
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> PoolMetrics:
    """A metric that does not watch any pool yet."""
    metrics = PoolMetrics()
    registry.register(metrics)
    return metrics


def counts(registry: CollectorRegistry) -> dict[str, float | None]:
    """The numbers of connections by state."""
    return {
        state: registry.get_sample_value("database_pool_connections", {"state": state})
        for state in ("in_use", "idle")
    }


def queue() -> QueuePool:
    """A pool of connections to databases in memory."""
    pool = create_engine("sqlite://", poolclass=QueuePool, pool_size=3).pool
    assert isinstance(pool, QueuePool)
    return pool


def test_connections_are_counted_at_the_scrape(
    registry: CollectorRegistry, metrics: PoolMetrics
) -> None:
    """The metric adds up all pools, and reads them only when it is scraped."""
    first, second = queue(), queue()
    metrics.watch(first)
    metrics.watch(second)
    before = counts(registry)
    connections = [first.connect(), first.connect(), second.connect()]
    taken = counts(registry)
    connections[0].close()
    given_back = counts(registry)
    for connection in connections[1:]:
        connection.close()
    for pool in (first, second):
        pool.dispose()

    assert [before, taken, given_back, counts(registry)] == [
        {"in_use": 0, "idle": 0},
        {"in_use": 3, "idle": 0},
        {"in_use": 2, "idle": 1},
        {"in_use": 0, "idle": 0},
    ]


def test_a_pool_is_forgotten_with_its_engine(
    registry: CollectorRegistry, metrics: PoolMetrics
) -> None:
    """When an application ends, its connections are no longer shown."""
    pool = queue()
    metrics.watch(pool)
    pool.connect().close()
    assert counts(registry) == {"in_use": 0, "idle": 1}

    pool.dispose()
    del pool
    gc.collect()

    assert not metrics._pools


def test_a_pool_that_keeps_no_connections_shows_none(
    registry: CollectorRegistry, metrics: PoolMetrics
) -> None:
    """Watching such a pool is not an error."""
    metrics.watch(create_engine("sqlite://", poolclass=NullPool).pool)

    assert counts(registry) == {"in_use": 0, "idle": 0}


def test_a_pool_is_counted_once(registry: CollectorRegistry, metrics: PoolMetrics) -> None:
    """Watching it again changes nothing."""
    pool = queue()
    metrics.watch(pool)
    metrics.watch(pool)
    connection = pool.connect()

    assert counts(registry) == {"in_use": 1, "idle": 0}
    connection.close()
    pool.dispose()


@pytest.mark.usefixtures("metrics")
def test_another_metric_with_its_name_is_refused(registry: CollectorRegistry) -> None:
    """The name is reserved before there is a value."""
    with pytest.raises(ValueError, match="database_pool_connections"):
        registry.register(PoolMetrics())
