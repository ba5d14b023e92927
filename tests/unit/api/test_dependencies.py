"""The dependencies that routes may use."""

import inspect
from collections.abc import Iterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends

from example_service.api.dependencies import (
    AppSettings,
    HTTPClient,
    OpenDatabase,
    Workers,
    circuit_breaker,
    get_payment_breaker,
)
from example_service.api.services import running_services
from example_service.core.settings import Settings
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.main import create_app
from tests.application import Serve


@pytest.fixture
def _no_shop() -> Iterator[None]:
    """Remove the breaker and its settings after the test."""
    yield
    circuit_breaker_registry.configure({})
    circuit_breaker_registry.unregister("shop")


@pytest.mark.usefixtures("_no_shop")
async def test_a_breaker_is_created_once_with_its_settings() -> None:
    """Settings take precedence over arguments in code, and those over the defaults."""
    circuit_breaker_registry.configure({"shop": {"failure_threshold": 2}})
    get_breaker = circuit_breaker("shop", failure_threshold=7, recovery_timeout=9.0)
    breaker = await get_breaker()
    assert (breaker.name, breaker.failure_threshold, breaker.recovery_timeout) == ("shop", 2, 9.0)
    assert await get_breaker() is breaker
    assert await circuit_breaker("shop")() is breaker


async def test_the_breaker_of_a_route_exists_from_the_start(serve: Serve) -> None:
    """Health and metrics show breakers of routes, routers and dependencies before any call."""
    routed, shared, nested = (circuit_breaker(f"start-{value}") for value in ("a", "b", "c"))

    async def guarded(_: Annotated[CircuitBreaker, Depends(nested)]) -> None:
        """Depend on a breaker, as the client of a route may."""

    router = APIRouter(prefix="/shop", dependencies=[Depends(shared)])

    @router.get("/stock", dependencies=[Depends(guarded)])
    async def stock(_: Annotated[CircuitBreaker, Depends(routed)]) -> None:
        """A route that is never called."""

    app = create_app(Settings(environment="test"))
    app.include_router(router)
    client = await serve(app)

    health = (await client.get("/health/circuit-breakers")).json()
    metrics = (await client.get("/metrics")).text
    for name in ("start-a", "start-b", "start-c"):
        assert health["breakers"][name]["state"] == "closed"
        assert f'circuit_breaker_state{{name="{name}"}} 0.0' in metrics
        circuit_breaker_registry.unregister(name)


def test_no_dependency_needs_a_thread() -> None:
    """FastAPI would run a dependency in a thread if it were not a coroutine function."""
    assert inspect.iscoroutinefunction(circuit_breaker("shop"))


def test_the_breaker_of_the_guide_is_a_dependency_without_parameters() -> None:
    """`get_payment_breaker` can be awaited anywhere, because it needs no request."""
    assert inspect.iscoroutinefunction(get_payment_breaker)
    assert not inspect.signature(get_payment_breaker).parameters


async def test_routes_get_what_the_application_opened() -> None:
    """Each alias returns the object that the composition root opened."""
    settings = Settings(environment="test")
    app = create_app(settings)
    seen: list[object] = []

    @app.get("/seen")
    async def see(
        settings: AppSettings, client: HTTPClient, database: OpenDatabase, workers: Workers
    ) -> None:
        seen.extend((settings, client, database, workers))

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service.test"
        ) as client,
    ):
        assert (await client.get("/seen")).status_code == 200
        services = running_services(app)
    assert services is not None
    assert seen == [settings, services.http_client, services.database, services.all_workers]


async def test_a_route_that_needs_a_service_before_the_start_gets_a_problem() -> None:
    """The client gets a 503 and can try another instance, instead of an internal error."""
    app = create_app(Settings(environment="test"))

    @app.get("/seen")
    async def see(_: HTTPClient) -> None:
        pytest.fail("there is no client yet")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        response = await client.get("/seen")
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/not-ready"
