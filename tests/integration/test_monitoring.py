"""The monitoring files with a real Prometheus, a real Alertmanager and the service."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.docs.pages import ROOT
from tests.monitoring.test_files import ALERTS, DASHBOARD
from tests.prometheus import Receiver, running_alertmanager, running_prometheus
from tests.service_process import DEADLINE_SECONDS, Service, get, wait_until

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 240.0
TOKEN = "7tQ-for-this-machine-only"
PAGES = [ROOT / "docs" / name for name in ("monitoring.md", "runbook.md", "payments.md")]
ADDED_BY_PROMETHEUS = {"job", "instance", "up"}
METRIC = r"\b(?:circuit_breaker|payments|http_requests?|database_pool|service_ready)(?:_\w+)?\b"
NO_METRICS = {"payments", "circuit_breaker", "http_request"}


def queries() -> list[str]:
    """Every expression of the Grafana dashboard, with its variables filled in."""
    values = {"$job": "example-service", "$name": ".+", "$__rate_interval": "30s"}
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for variable, value in values.items():
        expressions = [expression.replace(variable, value) for expression in expressions]
    return expressions


def labels_in(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expression)
    return {*selected, *re.findall(r"\w+", " ".join(grouped))}


@contextmanager
def traffic(url: str) -> Iterator[None]:
    """Request rates and order payments until the end of the block."""
    ended = threading.Event()

    def send() -> None:
        number = 0
        with httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client:
            while not ended.wait(0.05):
                number += 1
                client.get("/api/v1/exchange-rates/EUR")
                client.post(
                    "/api/v1/payments",
                    headers={"Idempotency-Key": f"monitored-{number}"},
                    json={"amount": 1250, "currency": "EUR", "customer_id": "customer-7"},
                )

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def url(start: Callable[..., Service]) -> str:
    """A service of two workers with its sandbox, whose payment circuit waits one second."""
    service = start(
        WORKERS="2",
        ADMIN__TOKEN=TOKEN,
        CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT="1",
        LIMITS__MONITORING_CACHE_SECONDS="0",
        PAYMENTS__COUNT_SECONDS="0.5",
    )
    return service.url


def test_all_metrics_of_monitoring_exist_and_every_query_returns_data(
    url: str, tmp_path: Path
) -> None:
    """A renamed metric or label fails here before it silences an alert or empties a panel."""
    httpx.post(
        f"{url}/admin/circuit-breakers/database/shadow",
        headers={"Authorization": f"Bearer {TOKEN}"},
        json={"reason": "The dashboard shows modes."},
    ).raise_for_status()

    with running_prometheus(tmp_path, url.removeprefix("http://")) as prometheus, traffic(url):
        without_data = set(queries())

        def all_have_data() -> bool:
            without_data.difference_update(
                [expression for expression in without_data if prometheus.query(expression)]
            )
            return not without_data

        wait_until(all_have_data, PATIENCE_SECONDS)
        families = list(text_string_to_metric_families(get(f"{url}/metrics").text))

    labels = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    expressions = [*queries(), *(rule["expr"] for rule in ALERTS)]
    for expression in expressions:
        metrics = re.findall(METRIC, re.sub(r'"[^"]*"', '""', expression))
        known = ADDED_BY_PROMETHEUS.union(*(labels[metric] for metric in metrics))
        assert labels_in(expression) <= known, expression
    named = {name for page in PAGES for name in re.findall(rf"`({METRIC})", page.read_text())}
    assert named - NO_METRICS <= labels.keys()


def test_in_an_outage_the_right_alert_is_pending_fires_and_is_resolved(
    url: str, tmp_path: Path
) -> None:
    """When the provider fails and recovers, a receiver gets both notifications."""
    receiver = Receiver()
    with (
        receiver.running(),
        running_alertmanager(tmp_path, receiver) as alertmanager,
        running_prometheus(tmp_path, url.removeprefix("http://"), alertmanager) as prometheus,
        traffic(url),
    ):
        pending = 'ALERTS{alertname="CircuitOpenTooLong", alertstate="pending"}[10m]'
        wait_until(lambda: prometheus.query("payments_finished_total > 0"), PATIENCE_SECONDS)
        assert prometheus.query(pending) == []

        httpx.put(f"{url}/sandbox/mode", json={"mode": "failing"}).raise_for_status()
        wait_until(lambda: receiver.received("firing", "CircuitOpenTooLong"), PATIENCE_SECONDS)
        assert [result["metric"]["name"] for result in prometheus.query(pending)] == ["payment"]
        assert receiver.received("resolved", "CircuitOpenTooLong") == []

        httpx.put(f"{url}/sandbox/mode", json={"mode": "healthy"}).raise_for_status()
        wait_until(lambda: receiver.received("resolved", "CircuitOpenTooLong"), PATIENCE_SECONDS)

    [firing, *_] = receiver.received("firing", "CircuitOpenTooLong")
    assert (firing["job"], firing["name"], firing["severity"]) == (
        *("example-service", "payment", "critical"),
    )
    circuits = {alert["labels"]["name"] for alert in receiver.alerts if "name" in alert["labels"]}
    assert circuits == {"payment"}
