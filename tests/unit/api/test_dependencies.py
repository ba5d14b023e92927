"""What routes may ask for."""

import inspect
from collections.abc import Iterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI

from example_service.api.dependencies import (
    AppSettings,
    HTTPClient,
    PaymentBreaker,
    Provider,
    circuit_breaker,
    get_payment_breaker,
)
from example_service.core.settings import Settings
from example_service.core.settings.model import PaymentProviderSettings
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.main import create_app
from example_service.payments.provider import payment_breaker


@pytest.fixture
def _no_shop() -> Iterator[None]:
    """Let the breaker of this test be made in it."""
    yield
    circuit_breaker_registry.configure({})
    circuit_breaker_registry.unregister("shop")


@pytest.mark.usefixtures("_no_shop")
async def test_a_breaker_is_made_once_with_its_settings() -> None:
    """Settings win over what the code says, and the code over the defaults."""
    circuit_breaker_registry.configure({"shop": {"failure_threshold": 2}})
    get_breaker = circuit_breaker("shop", failure_threshold=7, recovery_timeout=9.0)
    breaker = await get_breaker()
    assert (breaker.name, breaker.failure_threshold, breaker.recovery_timeout) == ("shop", 2, 9.0)
    assert await get_breaker() is breaker
    assert await circuit_breaker("shop")() is breaker


def test_no_dependency_needs_a_thread() -> None:
    """FastAPI runs what is no coroutine function in a thread."""
    assert inspect.iscoroutinefunction(circuit_breaker("shop"))
    assert inspect.iscoroutinefunction(get_payment_breaker)


async def test_the_payment_breaker_is_handed_out_anywhere() -> None:
    """It needs no request, and is the one that guards the provider."""
    assert not inspect.signature(get_payment_breaker).parameters
    assert await get_payment_breaker() is payment_breaker()


async def test_routes_get_what_the_application_holds() -> None:
    """Each alias hands out the object that the composition root made."""
    provider = PaymentProviderSettings(base_url="https://provider.test")
    settings = Settings(environment="test", payment_provider=provider)
    app: FastAPI = create_app(settings)
    seen: list[object] = []

    @app.get("/seen")
    async def see(
        settings: AppSettings,
        client: HTTPClient,
        breaker: PaymentBreaker,
        by_name: Annotated[CircuitBreaker, Depends(circuit_breaker("payment"))],
        _provider: Provider,
    ) -> None:
        seen.extend((settings, client, breaker, by_name))

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service.test"
        ) as client,
    ):
        assert (await client.get("/seen")).status_code == 200
    assert seen[0] is settings
    assert seen[1] is app.state.http_client
    assert seen[2] is seen[3] is payment_breaker()


async def test_without_a_provider_a_route_that_asks_for_it_is_a_problem() -> None:
    """Somebody has to say where the provider is."""
    app = create_app(Settings(environment="test"))

    @app.get("/provided")
    async def provided(_provider: Provider) -> None:
        pass

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service.test"
        ) as client,
    ):
        response = await client.get("/provided")
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/provider-not-configured"
