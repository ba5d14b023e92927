"""The rendered text, its formats and its headers."""

import gzip
import subprocess

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from example_service.infra.metrics import RequestMetrics
from example_service.infra.metrics.circuit_breakers import CircuitBreakerCollector
from example_service.infra.metrics.exposition import Expositions, expose, render
from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry
from tests.real_parts import program

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry with one gauge, whose value is 1."""
    registry = CollectorRegistry()
    Gauge("up", "Whether it is up.", registry=registry).set(1)
    return registry


@pytest.mark.parametrize("accept", ["", "*/*", "text/html,*/*;q=0.8", "text/plain;version=0.0.4"])
def test_prometheus_text_is_the_default(registry: CollectorRegistry, accept: str) -> None:
    """Browsers, curl and old Prometheus servers get the old format."""
    exposition = render(registry, accept=accept)

    assert exposition.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert exposition.body == b"# HELP up Whether it is up.\n# TYPE up gauge\nup 1.0\n"


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
def test_openmetrics_text_is_sent_on_request(registry: CollectorRegistry, accept: str) -> None:
    """Current Prometheus servers ask for OpenMetrics text."""
    exposition = render(registry, accept=accept)

    assert exposition.headers["Content-Type"].startswith(
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    assert [family.name for family in parse_openmetrics(exposition.body.decode())] == ["up"]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=99.0.0",
        "application/openmetrics-text;version=1.1.<script>",
        "text/plain;version=abc",
        "text/plain; version=",
        ";;;,,=,version=x",
        "\x00\xff",
    ],
)
def test_a_version_that_does_not_exist_is_ignored(registry: CollectorRegistry, accept: str) -> None:
    """An invalid version neither causes an error nor is repeated in the answer."""
    exposition = render(registry, accept=accept)

    assert exposition.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_gzip_is_used_if_the_client_accepts_it(registry: CollectorRegistry) -> None:
    """Prometheus accepts it; other clients get uncompressed text."""
    plain = render(registry)
    compressed = render(registry, accept_encoding="br, gzip")

    assert "Content-Encoding" not in plain.headers
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body


def test_metrics_are_not_cached(registry: CollectorRegistry) -> None:
    """The headers keep proxies from storing the text and from confusing its formats."""
    headers = render(registry).headers

    assert headers["Cache-Control"] == "no-store"
    assert headers["Vary"] == "Accept, Accept-Encoding"


async def test_a_single_process_shows_its_own_metrics() -> None:
    """They cover breakers, requests, the process and the interpreter."""
    breaker = CircuitBreaker("shown_by_a_single_process")

    exposition = await expose()

    families = {family.name: family for family in parse_prometheus(exposition.body.decode())}
    names = {sample.labels["name"] for sample in families["circuit_breaker_state"].samples}
    assert breaker.name in names
    assert {"http_requests", "http_requests_in_flight", "python_info"} <= families.keys()
    assert "process_resident_memory_bytes" in families


@pytest.mark.parametrize("name", ['"', "\\", "\n", 'a\\"b\n', "ä", "plain", "\x00"])
def test_promtool_accepts_the_text(name: str) -> None:
    """The checker of Prometheus finds no problem in any of our metrics."""
    promtool = program("promtool")
    breakers = CircuitBreakerRegistry()
    breaker = CircuitBreaker(name, registry=breakers)
    requests = RequestMetrics()
    requests.started()
    requests.finished("GET", f"/{breaker.name}", 200, 0.1)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(CircuitBreakerCollector(breakers))
    registry.register(requests)

    ended = subprocess.run(
        [promtool, "check", "metrics"],
        input=render(registry).body,
        capture_output=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_the_library_s_own_metrics_are_shown_too() -> None:
    """A counter and a histogram defined elsewhere appear without further code."""
    registry = CollectorRegistry()
    Counter("orders_total", "Orders.", registry=registry).inc()
    Histogram("order_seconds", "Seconds.", registry=registry).observe(0.2)

    families = parse_prometheus(render(registry).body.decode())

    assert {"orders", "order_seconds"} <= {family.name for family in families}


async def test_a_text_is_rendered_once_for_simultaneous_requests() -> None:
    """It is rendered once per format, whatever other headers clients send."""
    expositions = Expositions(kept_seconds=60.0)

    texts = [await expositions.get(accept=f"x/{number}") for number in range(20)]
    other = await expositions.get(accept="application/openmetrics-text;version=1.0.0")
    zipped = await expositions.get(accept_encoding="gzip")

    assert all(text is texts[0] for text in texts)
    assert other.headers["Content-Type"] != texts[0].headers["Content-Type"]
    assert zipped.headers["Content-Encoding"] == "gzip"
