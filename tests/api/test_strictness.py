"""What every route of the service has in common, including routes added later."""

import time

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import SecretStr

from example_service.api.request.strict_json import MAX_VALUES
from example_service.api.request.strict_route import StrictRoute
from example_service.core.settings import Settings
from example_service.core.settings.model import AdminSettings, HTTPSettings
from example_service.main import create_app
from tests.application import Serve

TOKEN = "n3q8vZ-2xkLw0pTs5dRb"


@pytest.fixture
def app() -> FastAPI:
    """The whole service with all optional routers."""
    return create_app(
        Settings(environment="development", admin=AdminSettings(token=SecretStr(TOKEN)))
    )


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(app)


def test_every_route_that_reads_something_reads_it_strictly(app: FastAPI) -> None:
    """Without `StrictRoute`, a route would accept duplicate members, parameters and headers."""
    routes = [context.original_route for context in iter_route_contexts(app.routes)]
    reading = [route for route in routes if isinstance(route, APIRoute) and reads_something(route)]

    assert reading
    assert [route.path for route in reading if not isinstance(route, StrictRoute)] == []


def reads_something(route: APIRoute) -> bool:
    """Whether a route has a body, query parameters or headers."""
    dependant = route.dependant
    return bool(route.body_field or dependant.query_params or dependant.header_params)


async def test_the_token_is_checked_before_a_body_is_read(client: httpx.AsyncClient) -> None:
    """Without the token, a client learns nothing about the body and costs no parsing."""
    path = "/admin/circuit-breakers/database/shadow"
    for content in (b"nonsense", b'{"reason": 1}', b"[" * 60_000):
        response = await client.post(
            path, content=content, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 401


@pytest.mark.parametrize("seconds", [1e-300, 0, -1, 1e300])
async def test_the_duration_of_a_mode_is_in_range(
    seconds: float, client: httpx.AsyncClient
) -> None:
    """A duration can be neither zero nor endless."""
    response = await client.post(
        "/admin/circuit-breakers/database/shadow",
        json={"reason": "A test.", "seconds": seconds},
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] == ["body", "seconds"]


async def test_garbage_is_refused_quickly(client: httpx.AsyncClient) -> None:
    """A body with as many values as allowed takes little time to refuse."""
    members = ",".join(f'"{number:x}":0' for number in range(MAX_VALUES))
    start = time.process_time()
    response = await client.post(
        "/admin/circuit-breakers/database/shadow",
        content=f"{{{members}}}",
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
    )
    assert response.status_code == 422
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    "path", ["/health/live", "/nowhere", "/health/circuit-breakers", "/docs", "/dashboard", "/"]
)
async def test_every_response_has_the_headers_that_protect_browsers(
    path: str, client: httpx.AsyncClient
) -> None:
    """This includes problems, pages and redirects."""
    response = await client.get(path)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"]


async def test_paths_are_those_that_a_client_of_the_proxy_sees(serve: Serve) -> None:
    """Problems and redirects include the root path, and routing still works."""
    http = HTTPSettings(root_path="/shop", cors_origins=["https://app.example.com"])
    client = await serve(create_app(Settings(environment="test", http=http)))

    missing = await client.get("/nowhere", headers={"Origin": "https://app.example.com"})

    assert (await client.get("/health/live")).status_code == 200
    assert missing.json()["type"] == "/shop/problems/not-found"
    assert missing.json()["instance"] == "/shop/nowhere"
    assert "Location" in missing.headers["Access-Control-Expose-Headers"]
