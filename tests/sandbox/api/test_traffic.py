"""Calls at a steady rate through the payment provider's circuit."""

import json
from collections import Counter

import httpx
import pytest
import respx
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from example_service.core.lifecycle import begin_draining, end_draining
from example_service.core.settings import Settings
from example_service.main import create_app
from example_service.payments.settings import PaymentProviderSettings
from tests.application import LogLines, Serve

pytestmark = pytest.mark.usefixtures("no_breakers_of_other_tests")
PROVIDER_URL = "https://provider.test"


@pytest.fixture
def app() -> FastAPI:
    """An application in development with a provider."""
    provider = PaymentProviderSettings(base_url=PROVIDER_URL)
    return create_app(Settings(payment_provider=provider))


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the application."""
    return await serve(app)


@pytest.mark.usefixtures("client")
async def test_responses_are_counted_by_status_and_the_circuit_opens(
    app: FastAPI, log_lines: LogLines
) -> None:
    """The calls are real, so the first five fail and the others are refused; none is logged."""
    answers: Counter[str] = Counter()

    async def app_that_drains(scope: Scope, receive: Receive, send: Send) -> None:
        """End the stream after enough responses, because the client reads it as a whole."""

        async def count(message: Message) -> None:
            await send(message)
            for line in message.get("body", b"").splitlines():
                if line.startswith(b"data: "):
                    answers.update(json.loads(line.removeprefix(b"data: "))["answers"])
            if answers["503"] >= 20:
                begin_draining()

        await app(scope, receive, count)

    transport = httpx.ASGITransport(app_that_drains)
    with respx.mock(base_url=PROVIDER_URL) as provider:
        provider.get("/v1/rates/EUR").respond(503)
        log_lines()
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as reader:
                await reader.post("/sandbox/traffic", json={"calls_per_second": 50})
        finally:
            end_draining()

    assert answers.keys() == {"502", "503"}
    assert answers["502"] == 5
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
