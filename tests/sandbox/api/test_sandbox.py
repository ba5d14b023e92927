"""The sandbox's controls in the service's own API."""

from typing import Literal

import httpx
import pytest
import respx

from example_service.core.settings import Settings
from example_service.main import create_app
from example_service.sandbox.settings import SandboxSettings
from tests.application import Serve

CONTROL_URL = "http://control.test"
FAILING = {"mode": "failing", "latency_seconds": None, "failure_rate": None, "seed": None}


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of an application in development with a sandbox."""
    return await serve(create_app(Settings(sandbox=SandboxSettings(control_url=CONTROL_URL))))


async def test_the_mode_is_passed_on(client: httpx.AsyncClient) -> None:
    """The request reaches the sandbox, and its response is returned."""
    with respx.mock(base_url=CONTROL_URL) as control:
        route = control.put("/sandbox/mode").respond(json=FAILING)
        response = await client.put("/sandbox/mode", json={"mode": "failing"})
    assert (response.status_code, response.json()) == (200, FAILING)
    assert httpx.Response(200, content=route.calls.last.request.content).json() == FAILING


async def test_the_mode_is_shown(client: httpx.AsyncClient) -> None:
    """The response is the sandbox's own report."""
    with respx.mock(base_url=CONTROL_URL) as control:
        control.get("/sandbox/mode").respond(json=FAILING)
        assert (await client.get("/sandbox/mode")).json() == FAILING


async def test_the_charges_are_shown(client: httpx.AsyncClient) -> None:
    """The response includes the counts that would reveal a double charge."""
    charge = {
        "id": "ch_1",
        "idempotency_key": "k",
        "amount": 1000,
        "currency": "EUR",
        "customer_id": "alice",
        "status": "succeeded",
        "times_charged": 1,
        "requests": 2,
    }
    report = {"charges": [charge], "total_charges": 1}
    with respx.mock(base_url=CONTROL_URL) as control:
        control.get("/sandbox/charges").respond(json=report)
        assert (await client.get("/sandbox/charges")).json() == report


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": "on fire"}, "mode"),
        ({}, "mode"),
        ({"mode": "slow", "latency_seconds": 0}, "latency_seconds"),
        ({"mode": "failing", "seed": 1}, "seed"),
    ],
)
async def test_bad_input_is_a_problem_and_is_not_passed_on(
    change: dict[str, object], field: str, client: httpx.AsyncClient
) -> None:
    """The problem names the field and the allowed values."""
    response = await client.put("/sandbox/mode", json=change)
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["location"] == ["body", field]
    assert "fire" not in response.text


@pytest.mark.parametrize(
    "answer", [httpx.Response(500), httpx.ConnectError("gone"), httpx.ReadTimeout("stuck")]
)
async def test_a_sandbox_that_does_not_answer_is_a_problem(
    answer: httpx.Response | Exception, client: httpx.AsyncClient
) -> None:
    """The status is 503, because in development the sandbox is a part of the service."""
    with respx.mock(base_url=CONTROL_URL) as control:
        control.get("/sandbox/mode").mock(side_effect=[answer])
        response = await client.get("/sandbox/mode")
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/sandbox-unavailable"


async def test_without_a_sandbox_there_is_nothing_to_switch(serve: Serve) -> None:
    """In development with another provider, the response says so."""
    client = await serve(create_app(Settings()))
    response = await client.get("/sandbox/mode")
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/no-sandbox"


async def test_outside_development_the_routes_do_not_exist(serve: Serve) -> None:
    """This applies even if the address of a sandbox is set."""
    sandbox = SandboxSettings(control_url=CONTROL_URL)
    client = await serve(create_app(Settings(environment="test", sandbox=sandbox)))
    response = await client.put("/sandbox/mode", json={"mode": "failing"})
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/not-found"


@pytest.mark.parametrize(
    ("environment", "problem"), [("development", "no-sandbox"), ("test", "not-found")]
)
async def test_the_switch_is_for_development_only(
    serve: Serve, environment: Literal["development", "test"], problem: str
) -> None:
    """In other environments the path does not exist."""
    client = await serve(create_app(Settings(environment=environment)))
    response = await client.get("/sandbox/mode")
    assert response.status_code == 404
    assert response.json()["type"] == f"/problems/{problem}"
