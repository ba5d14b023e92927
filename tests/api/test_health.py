"""What load balancers, orchestrators and operators see of the service's health."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from example_service.core.lifecycle import begin_draining, end_draining
from example_service.core.settings import Settings
from example_service.core.settings.breakers import CircuitBreakerSettings
from example_service.core.settings.model import AdminSettings
from example_service.infra.database.database import database_breaker
from example_service.infra.readiness import Check, Readiness
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.infra.resilience.testing import FakeClock, opened
from example_service.infra.resilience.validation import MAX_REASON_LENGTH
from example_service.main import create_app
from example_service.migrations import upgrade
from tests.application import LogLines, Serve

TOKEN = "a-token-of-more-than-sixteen"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
PROBES = ("/health/live", "/health/startup", "/health/ready", "/health/circuit-breakers")


@pytest.fixture(autouse=True)
async def _schema() -> None:
    """A database that is up to date."""
    await upgrade(Settings())


@pytest.fixture
def app() -> FastAPI:
    """The service with administration and a critical breaker."""
    return create_app(
        Settings(
            environment="test",
            admin=AdminSettings(token=SecretStr(TOKEN)),
            circuit_breakers={"search": CircuitBreakerSettings(critical=True)},
        )
    )


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(app)


@pytest.fixture
def _draining() -> Iterator[None]:
    """A process that has begun to stop."""
    begin_draining()
    yield
    end_draining()


async def open_circuit(breaker: CircuitBreaker) -> None:
    """Record failures until the circuit opens."""

    async def fail() -> None:
        raise breaker_failure

    failure_type: Any = breaker.expected_exception
    breaker_failure = failure_type("of the provider")
    for _ in range(breaker.failure_threshold):
        with pytest.raises(failure_type):
            await breaker.call(fail)
    assert breaker.is_open


@pytest.mark.parametrize("path", PROBES)
async def test_probes_answer_get_and_head_and_are_not_cached(
    client: httpx.AsyncClient, path: str
) -> None:
    """Load balancers probe with HEAD."""
    for method in ("GET", "HEAD"):
        response = await client.request(method, path)
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"


async def test_probes_say_what_they_mean(client: httpx.AsyncClient) -> None:
    """Each probe has its own word for healthy."""
    answers = [(await client.get(path)).json()["status"] for path in PROBES]
    assert answers == ["alive", "started", "ready", "healthy"]


async def test_the_startup_probe_fails_until_the_service_has_started(app: FastAPI) -> None:
    """An orchestrator waits until startup is complete."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        response = await client.get("/health/startup")
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/not-ready"


@pytest.mark.usefixtures("_draining")
async def test_a_draining_service_is_live_and_not_ready(client: httpx.AsyncClient) -> None:
    """New requests go elsewhere while requests in flight are finished."""
    for method in ("GET", "HEAD"):
        response = await client.request(method, "/health/ready")
        assert response.status_code == 503
        assert response.headers["Content-Type"] == "application/problem+json"
    body = (await client.get("/health/ready")).json()
    assert (body["type"], "reasons" in body) == ("/problems/not-ready", False)
    assert (await client.get("/health/live")).status_code == 200


async def test_draining_shows_at_once(client: httpx.AsyncClient) -> None:
    """A result kept from a moment ago does not hide it."""
    assert (await client.get("/health/ready")).status_code == 200
    begin_draining()
    try:
        response = await client.get("/health/ready", headers=AUTHORISED)
    finally:
        end_draining()
    assert response.json()["reasons"] == {"shutdown": "draining"}


async def test_a_database_without_a_schema_makes_the_service_unready(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has to be migrated first, and no instance does that by itself."""
    monkeypatch.setattr("example_service.migrations.head_revisions", lambda: frozenset({"later"}))
    empty = SecretStr(f"sqlite:///{tmp_path}/empty.sqlite3")
    admin = AdminSettings(token=SecretStr(TOKEN))
    client = await serve(create_app(Settings(environment="test", database_url=empty, admin=admin)))
    response = await client.get("/health/ready", headers=AUTHORISED)
    assert response.status_code == 503
    reason = "the database has no schema; run `example-service migrate`"
    assert response.json()["reasons"] == {"database": reason}


async def test_an_open_database_circuit_makes_the_service_unready(
    client: httpx.AsyncClient,
) -> None:
    """Readiness follows the circuit without querying the database again."""
    with opened(database_breaker()):
        response = await client.get("/health/ready", headers=AUTHORISED)
    assert response.status_code == 503
    assert "Circuit breaker 'database'" in response.json()["reasons"]["database"]


async def test_an_open_critical_circuit_makes_the_service_unready(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    """Only the log and requests with the token see the reasons."""
    await open_circuit(circuit_breaker_registry.get_or_create("search"))
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "search" not in response.text
    authorised = await client.get("/health/ready", headers=AUTHORISED)
    reasons = {"critical circuit breakers": "open: search"}
    assert authorised.json()["reasons"] == reasons
    (line,) = [line for line in log_lines() if line["event"] == "readiness changed"]
    assert line["faults"] == reasons
    wrong = await client.get("/health/ready", headers={"Authorization": "Bearer nonsense"})
    assert (wrong.status_code, "reasons" in wrong.json()) == (503, False)


async def test_an_open_circuit_that_is_not_critical_leaves_the_service_ready(
    serve: Serve,
) -> None:
    """A failing dependency must not take every instance out of the load balancer."""
    client = await serve(create_app(Settings(environment="test")))
    await open_circuit(circuit_breaker_registry.get_or_create("search"))
    assert (await client.get("/health/ready")).status_code == 200
    assert (await client.get("/health/live")).status_code == 200


async def test_many_probes_run_the_checks_once(app: FastAPI, client: httpx.AsyncClient) -> None:
    """Simultaneous probes share one run of the checks, whatever the checks are."""
    asked, answering, runs = asyncio.Event(), asyncio.Event(), 0

    async def fault() -> str | None:
        nonlocal runs
        runs += 1
        asked.set()
        await answering.wait()
        return "disk full"

    readiness = Readiness([Check("database", fault)], clock=FakeClock())
    app.state.services = replace(app.state.services, readiness=readiness)
    probes = [asyncio.create_task(client.get("/health/ready")) for _ in range(10)]
    await asked.wait()
    answering.set()
    assert {response.status_code for response in await asyncio.gather(*probes)} == {503}
    assert (await client.get("/health/ready", headers=AUTHORISED)).json()["reasons"] == {
        "database": "disk full"
    }
    assert runs == 1


async def test_breakers_are_shown_with_their_metrics(client: httpx.AsyncClient) -> None:
    """Every breaker of the process is listed without being registered by hand."""
    breaker = CircuitBreaker("of_this_test")
    body = (await client.get("/health/circuit-breakers")).json()
    assert body["status"] == "healthy"
    assert body["breakers"]["of_this_test"] == breaker.get_metrics()
    assert body["breakers"]["database"]["state"] == "closed"


async def test_the_reason_and_the_mode_are_shown_while_they_apply(
    client: httpx.AsyncClient,
) -> None:
    """The response has exactly the breaker's metrics, including optional members."""
    breaker = CircuitBreaker("of_this_test", clock=FakeClock())
    for seconds in (None, 60.0):
        breaker.force_open("stocktaking", seconds)
        body = (await client.get("/health/circuit-breakers")).json()
        shown = body["breakers"]["of_this_test"]
        assert shown == breaker.get_metrics()
        assert shown["reason"] == "forced open by hand: stocktaking"
        assert shown["mode"]["ends_in"] == seconds
        assert body["status"] == "degraded"
    await breaker.reset()
    body = (await client.get("/health/circuit-breakers")).json()
    assert not {"reason", "mode"} & set(body["breakers"]["of_this_test"])


async def test_the_last_transitions_are_shown_with_reason_and_time(
    client: httpx.AsyncClient,
) -> None:
    """Newest first; asking also shows a transition that was due because the wait is over."""
    clock = FakeClock()
    breaker = CircuitBreaker("of_a_story", recovery_timeout=3.0, success_threshold=1, clock=clock)
    before = datetime.now(UTC)
    await open_circuit(breaker)
    clock.advance(3)
    transitions = (await client.get("/health/circuit-breakers")).json()["transitions"]
    half_open, opened = (each for each in transitions if each["breaker_name"] == "of_a_story")
    for each in (half_open, opened):
        assert before <= datetime.fromisoformat(each.pop("at")) <= datetime.now(UTC)
        assert each.pop("worker") == os.getpid()
    assert opened == {
        "breaker_name": "of_a_story",
        "from_state": "closed",
        "to_state": "open",
        "reason": "5 failures in a row; last failures: Exception",
        "wait_seconds": 3.0,
        "failure_count": 5,
        "rejections": 0,
        "caused_by": "rules",
    }
    assert (half_open["to_state"], half_open["wait_seconds"]) == ("half_open", None)


async def test_transitions_are_bounded_and_outlive_their_breakers(
    client: httpx.AsyncClient,
) -> None:
    """The last transitions of short-lived breakers are shown, and no more than twenty."""
    for number in range(50):
        CircuitBreaker(f"of_request_{number}").force_open("x" * 500)
    body = (await client.get("/health/circuit-breakers")).json()
    transitions = body["transitions"]
    assert [each["breaker_name"] for each in transitions] == [
        f"of_request_{number}" for number in range(49, 29, -1)
    ]
    assert {len(each["reason"]) for each in transitions} == {MAX_REASON_LENGTH}
    assert transitions[0]["wait_seconds"] is None
    assert "of_request_49" not in body["breakers"]


@pytest.mark.parametrize("odd", ['say "no"', "two\nlines", "half \ud83d", "zahlung-ä-🔌"])
async def test_odd_names_do_not_break_the_response(client: httpx.AsyncClient, odd: str) -> None:
    """The response is JSON whatever the name is; a lone surrogate is escaped."""
    breaker = CircuitBreaker(odd)
    breaker.force_open('on "request"')
    body = (await client.get("/health/circuit-breakers")).json()
    readable = odd.replace("\ud83d", "\\ud83d")
    assert body["breakers"][readable]["mode"]["reason"] == 'on "request"'
    assert body["breakers"][readable]["reason"] == 'forced open by hand: on "request"'
    assert body["transitions"][0]["breaker_name"] == readable
    assert body["transitions"][0]["reason"] == 'forced open by hand: on "request"'


async def test_one_circuit_that_is_not_closed_degrades_the_service(
    client: httpx.AsyncClient,
) -> None:
    """The service is degraded but not down, so the status stays 200."""
    clock = FakeClock()
    breaker = CircuitBreaker("of_this_test", recovery_timeout=3.0, clock=clock)
    await open_circuit(breaker)
    for state in ("open", "half_open"):
        response = await client.get("/health/circuit-breakers")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert response.json()["breakers"]["of_this_test"]["state"] == state
        clock.advance(3)
    await breaker.reset()
    assert (await client.get("/health/circuit-breakers")).json()["status"] == "healthy"
