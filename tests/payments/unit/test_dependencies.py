"""The dependencies that the payments domain offers to routes."""

from typing import Annotated

import httpx
from fastapi import Depends, FastAPI

from example_service.api.dependencies import circuit_breaker, get_payment_breaker
from example_service.core.settings import Settings
from example_service.infra.resilience import CircuitBreaker
from example_service.main import create_app
from example_service.payments.dependencies import PaymentBreaker, Provider
from example_service.payments.provider import payment_breaker
from example_service.payments.settings import PaymentProviderSettings


async def test_every_way_to_the_payment_breaker_leads_to_the_same_one() -> None:
    """The alias, the name and a call without a request give the same object."""
    provider = PaymentProviderSettings(base_url="https://provider.test")
    app: FastAPI = create_app(Settings(environment="test", payment_provider=provider))
    seen: list[object] = []

    @app.get("/seen")
    async def see(
        breaker: PaymentBreaker,
        by_name: Annotated[CircuitBreaker, Depends(circuit_breaker("payment"))],
        _provider: Provider,
    ) -> None:
        seen.extend((breaker, by_name))

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service.test"
        ) as client,
    ):
        assert (await client.get("/seen")).status_code == 200
    assert seen[0] is seen[1] is payment_breaker() is await get_payment_breaker()


async def test_without_a_provider_a_route_that_asks_for_it_is_a_problem() -> None:
    """The problem says that the settings must name a provider."""
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
