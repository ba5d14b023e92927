"""`GET /metrics` through the whole application."""

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from example_service.core.lifecycle import begin_draining, end_draining
from example_service.core.settings import Settings
from example_service.infra.resilience import CircuitBreaker
from example_service.main import create_app
from tests.application import Serve


@pytest.fixture
def app() -> FastAPI:
    """The whole application."""
    return create_app(Settings(environment="test"))


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the running application."""
    return await serve(app)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a Prometheus text, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_prometheus(text)
        for sample in family.samples
    }


async def test_breakers_and_requests_are_shown(client: httpx.AsyncClient) -> None:
    """All breakers are listed before any call, with or without explicit registration."""
    breaker = CircuitBreaker("made_in_a_test_of_the_api")

    response = await client.get("/metrics")

    assert response.status_code == 200
    shown = samples(response.text)
    for name in (breaker.name, "database"):
        assert shown["circuit_breaker_state", frozenset({("name", name)})] == 0
    assert shown["http_requests_in_flight", frozenset()] >= 1


async def test_a_scrape_checks_whether_the_service_is_ready(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert works even if no orchestrator probes the service."""
    faults = {"database": "gone"}

    async def look() -> dict[str, str]:
        return faults

    monkeypatch.setattr(app.state.services.readiness, "faults", look)
    not_ready = samples((await client.get("/metrics")).text)["service_ready", frozenset()]
    faults.clear()
    ready = samples((await client.get("/metrics")).text)["service_ready", frozenset()]
    begin_draining()
    try:
        draining = samples((await client.get("/metrics")).text)["service_ready", frozenset()]
    finally:
        end_draining()

    assert (not_ready, ready, draining) == (0, 1, 0)


async def test_requests_are_counted_by_the_template_of_their_route(
    client: httpx.AsyncClient,
) -> None:
    """What a client puts into a path never becomes a label."""
    labels = frozenset({("method", "GET"), ("route", "/problems/{slug}"), ("status", "404")})
    before = samples((await client.get("/metrics")).text).get(("http_requests_total", labels), 0)

    for slug in ("one-of-many", 'say-"no"', "two%0Alines"):
        await client.get(f"/problems/{slug}")

    text = (await client.get("/metrics")).text
    assert samples(text)["http_requests_total", labels] == before + 3
    assert "one-of-many" not in text


async def test_paths_that_do_not_exist_share_one_label(client: httpx.AsyncClient) -> None:
    """A scanner cannot create series."""
    before = len(samples((await client.get("/metrics")).text))
    await client.get("/wp-login.php")
    once = len(samples((await client.get("/metrics")).text))

    for number in range(20):
        await client.get(f"/backup-{number}.zip")

    text = (await client.get("/metrics")).text
    assert len(samples(text)) == once
    assert "wp-login" not in text
    assert once >= before


async def test_openmetrics_is_served_if_preferred(client: httpx.AsyncClient) -> None:
    """The Accept header decides, in the form that a Prometheus server sends it."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"

    response = await client.get("/metrics", headers={"Accept": accept})

    assert response.headers["Content-Type"].startswith("application/openmetrics-text;")
    families = {family.name for family in parse_openmetrics(response.text)}  # type: ignore[no-untyped-call]
    assert {"circuit_breaker_state", "http_requests"} <= families


async def test_nonsense_in_headers_is_ignored(client: httpx.AsyncClient) -> None:
    """A version that is not a number gets the default format."""
    headers = {"Accept": "application/openmetrics-text;version=x", "Accept-Encoding": ";;q=,x"}

    response = await client.get("/metrics", headers=headers)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_head_is_answered_with_the_headers_of_get(client: httpx.AsyncClient) -> None:
    """Uptime checks may ask for the headers only."""
    response = await client.head("/metrics", headers={"Accept-Encoding": "identity"})

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_other_methods_are_refused(client: httpx.AsyncClient) -> None:
    """The metrics are read-only."""
    response = await client.post("/metrics")

    assert response.status_code == 405
    assert response.headers["Content-Type"] == "application/problem+json"


def test_the_openapi_document_leaves_metrics_out(app: FastAPI) -> None:
    """Metrics are for operators, not for clients of the API."""
    assert "/metrics" not in app.openapi()["paths"]
