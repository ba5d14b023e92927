"""The metrics that all domains share.

Importing this package registers its collectors, including the one for all circuit breakers, with
the default registry of prometheus_client.
"""

from prometheus_client import REGISTRY, disable_created_metrics

from example_service.infra.metrics.call_durations import CallDurations, call_duration_metrics
from example_service.infra.metrics.circuit_breakers import (
    CircuitBreakerCollector,
    circuit_breaker_collector,
)
from example_service.infra.metrics.database_pool import PoolMetrics, pool_metrics
from example_service.infra.metrics.exposition import Exposition, Expositions, expose
from example_service.infra.metrics.fleet import FleetMetrics, fleet_metrics
from example_service.infra.metrics.http import RequestMetrics, request_metrics
from example_service.infra.metrics.readiness import show_readiness
from example_service.infra.metrics.shared.multiprocess import (
    mark_worker_dead,
    prepare_multiprocess_directory,
    shared_metrics,
)

__all__ = [
    "CallDurations",
    "CircuitBreakerCollector",
    "Exposition",
    "Expositions",
    "FleetMetrics",
    "PoolMetrics",
    "RequestMetrics",
    "expose",
    "fleet_metrics",
    "mark_worker_dead",
    "pool_metrics",
    "prepare_multiprocess_directory",
    "request_metrics",
    "shared_metrics",
    "show_readiness",
]

# These would add a second series to each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

for _collector in (
    circuit_breaker_collector,
    call_duration_metrics,
    request_metrics,
    pool_metrics,
    fleet_metrics,
):
    REGISTRY.register(_collector)
