"""Calls at a steady rate through the payment provider's circuit."""

import asyncio
import json

import httpx
import pytest
import respx

from example_service.core.lifecycle import begin_draining, end_draining
from example_service.core.settings import Settings
from example_service.main import create_app
from example_service.payments.settings import PaymentProviderSettings
from tests.application import LogLines, Serve

pytestmark = pytest.mark.usefixtures("no_breakers_of_other_tests")
PROVIDER_URL = "https://provider.test"


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of an application in development with a provider."""
    provider = PaymentProviderSettings(base_url=PROVIDER_URL)
    return await serve(create_app(Settings(payment_provider=provider)))


async def test_responses_are_counted_by_status_and_the_circuit_opens(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    """The calls are real, so the first five fail and the others are refused; none is logged."""
    with respx.mock(base_url=PROVIDER_URL) as provider:
        provider.get("/v1/rates/EUR").respond(503)
        log_lines()
        # The test client reads whole responses only, so the service has to end the stream.
        asyncio.get_running_loop().call_later(1.6, begin_draining)
        try:
            response = await client.post("/sandbox/traffic", json={"calls_per_second": 50})
        finally:
            end_draining()

    events = [line for line in response.text.split("\n\n") if line.startswith("data: ")]
    answers = [json.loads(event.removeprefix("data: "))["answers"] for event in events]
    assert sum(each.get("502", 0) for each in answers) == 5
    assert sum(each.get("503", 0) for each in answers) >= 20
    assert not [line for line in log_lines() if line["event"] == "request"]


@pytest.mark.parametrize("rate", [0, 101, 2.5, True, "10"])
async def test_the_rate_is_bounded(client: httpx.AsyncClient, rate: object) -> None:
    """The rate is a whole number of calls per second, at most a hundred."""
    response = await client.post("/sandbox/traffic", json={"calls_per_second": rate})

    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] == ["body", "calls_per_second"]


async def test_there_is_no_traffic_outside_development(serve: Serve) -> None:
    """Like the sandbox's other controls, the route does not exist there."""
    client = await serve(create_app(Settings(environment="test")))

    response = await client.post("/sandbox/traffic", json={"calls_per_second": 1})

    assert response.status_code == 404
