"""How strictly the routes of payments parse numbers and bodies."""

import httpx
import pytest
from fastapi import FastAPI

from example_service.core.settings import Settings
from example_service.main import create_app
from tests.application import Serve


@pytest.fixture
def app() -> FastAPI:
    """The service without a provider."""
    return create_app(Settings(environment="test"))


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(app)


@pytest.mark.parametrize("number", ["1_0", " 5 ", "5\r", "+5", "5.0", "\u0665", "", "0x5", "5e0"])
async def test_numbers_in_queries_are_plain_digits(
    number: str, app: FastAPI, client: httpx.AsyncClient
) -> None:
    """This applies to every operation in the OpenAPI document."""
    asked = 0
    for path, operations in app.openapi()["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            if parameter["in"] == "query" and parameter["schema"].get("type") == "integer":
                response = await client.get(path, params={parameter["name"]: number})
                assert response.status_code == 422
                asked += 1
    assert asked


@pytest.mark.parametrize("query", ["limit=5&limit=6", "cursor=a&cursor=b", "cursor&x=1&cursor"])
async def test_repeated_parameters_are_refused(query: str, client: httpx.AsyncClient) -> None:
    """Proxies and logs may use another one of the values than the service."""
    response = await client.get(f"/api/v1/payments?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] in (["query", "limit"], ["query", "cursor"])


async def test_a_member_that_is_there_twice_is_refused(client: httpx.AsyncClient) -> None:
    """The problem says why, and neither of two amounts is charged."""
    response = await client.post(
        "/api/v1/payments",
        content=b'{"amount": 1, "currency": "EUR", "customer_id": "c", "amount": 1000000}',
        headers={"Content-Type": "application/json", "Idempotency-Key": "twice"},
    )
    assert (response.status_code, response.json()["type"]) == (400, "/problems/malformed-json")
    assert response.json()["detail"] == "A member must not be repeated."
