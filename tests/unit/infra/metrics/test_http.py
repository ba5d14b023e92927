"""Counting and timing of HTTP requests."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from example_service.infra.metrics import RequestMetrics
from example_service.infra.metrics.duration_buckets import DURATION_BOUNDS_SECONDS

ROUTE = "/api/v1/exchange-rates/{currency}"


@pytest.fixture
def requests() -> RequestMetrics:
    """The metrics before the first request."""
    return RequestMetrics()


@pytest.fixture
def registry(requests: RequestMetrics) -> CollectorRegistry:
    """A separate registry that exports these metrics."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(requests)
    return registry


def request(
    requests: RequestMetrics,
    *,
    method: str = "GET",
    route: str = ROUTE,
    status: int = 200,
    seconds: float = 0.0,
) -> None:
    """Start and finish one request."""
    requests.started()
    requests.finished(method, route, status, seconds)


def test_requests_are_counted_by_method_route_and_status(
    requests: RequestMetrics, registry: CollectorRegistry
) -> None:
    """Each combination has its own series."""
    request(requests)
    request(requests)
    request(requests, status=503)
    request(requests, method="POST", route="/api/v1/payments", status=201)

    def count(method: str, route: str, status: str) -> float | None:
        labels = {"method": method, "route": route, "status": status}
        return registry.get_sample_value("http_requests_total", labels)

    assert count("GET", ROUTE, "200") == 2
    assert count("GET", ROUTE, "503") == 1
    assert count("POST", "/api/v1/payments", "201") == 1
    assert count("POST", "/api/v1/payments", "200") is None


def test_a_request_is_in_flight_until_it_is_finished(
    requests: RequestMetrics, registry: CollectorRegistry
) -> None:
    """The gauge counts requests that have started and not yet finished."""
    requests.started()
    requests.started()
    requests.finished("GET", ROUTE, 200, 0.1)

    assert registry.get_sample_value("http_requests_in_flight") == 1


def test_durations_are_added_up_over_all_statuses(
    requests: RequestMetrics, registry: CollectorRegistry
) -> None:
    """The histogram distinguishes methods and routes, but not statuses."""
    request(requests, seconds=0.25)
    request(requests, seconds=0.5, status=503)
    request(requests, seconds=60.0)

    labels = {"method": "GET", "route": ROUTE}
    duration = "http_request_duration_seconds"
    buckets = {
        end: registry.get_sample_value(f"{duration}_bucket", {**labels, "le": end})
        for end in ("0.1", "0.25", "0.5", "10.0", "+Inf")
    }
    assert buckets == {"0.1": 0, "0.25": 1, "0.5": 2, "10.0": 2, "+Inf": 3}
    assert registry.get_sample_value(f"{duration}_count", labels) == 3
    assert registry.get_sample_value(f"{duration}_sum", labels) == 60.75


@pytest.mark.parametrize("seconds", DURATION_BOUNDS_SECONDS)
def test_the_bound_of_a_bucket_belongs_to_it(
    requests: RequestMetrics, registry: CollectorRegistry, seconds: float
) -> None:
    """In Prometheus, `le` means less than or equal."""
    request(requests, seconds=seconds)

    labels = {"method": "GET", "route": ROUTE, "le": str(seconds)}
    assert registry.get_sample_value("http_request_duration_seconds_bucket", labels) == 1


def test_unknown_methods_share_one_label(
    requests: RequestMetrics, registry: CollectorRegistry
) -> None:
    """A client cannot create series by inventing methods."""
    for number in range(100):
        request(requests, method=f"BREW{number}", status=405)

    labels = {"method": "other", "route": ROUTE, "status": "405"}
    assert registry.get_sample_value("http_requests_total", labels) == 100
    (family,) = (family for family in registry.collect() if family.name == "http_requests")
    assert len(family.samples) == 1


def test_routes_beyond_the_limit_share_one_label() -> None:
    """Every request is counted, and known routes keep their labels."""
    requests = RequestMetrics(max_series=2)
    registry = CollectorRegistry()
    registry.register(requests)

    for route in ("/a", "/b", "/c", "/d", "/a"):
        request(requests, route=route)

    def count(route: str) -> float | None:
        labels = {"method": "GET", "route": route, "status": "200"}
        return registry.get_sample_value("http_requests_total", labels)

    assert [count(route) for route in ("/a", "/b", "/c", "/d", "other")] == [2, 1, None, None, 2]


def test_both_text_formats_are_valid(requests: RequestMetrics, registry: CollectorRegistry) -> None:
    """The rendered text can be parsed, including the histogram."""
    request(requests, route='/odd/"{path}"')

    prometheus = parse_prometheus(generate_latest(registry).decode())
    openmetrics = parse_openmetrics(generate_openmetrics(registry).decode())  # type: ignore[no-untyped-call]

    names = ["http_requests", "http_request_duration_seconds", "http_requests_in_flight"]
    assert [family.name for family in prometheus] == names
    assert [family.name for family in openmetrics] == names
