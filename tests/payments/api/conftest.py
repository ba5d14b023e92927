"""An application for each test, with a fake provider and a client."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import respx
from fastapi import FastAPI

from example_service.core.settings import Settings
from example_service.main import create_app
from example_service.payments.settings import PaymentProviderSettings
from tests.application import Serve
from tests.payments.api.orders import ORDER, PAYMENTS, PROVIDER_URL, Pay, charge_of


@pytest.fixture(autouse=True)
def _own_breakers(no_breakers_of_other_tests: None) -> None:
    """Keep the breakers of one application out of the next."""


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application with a provider and a migrated database."""
    provider = PaymentProviderSettings(base_url=PROVIDER_URL)
    return create_app(settings.model_copy(update={"payment_provider": provider}))


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the running application."""
    return await serve(app)


@pytest.fixture
def provider() -> Iterator[respx.Route]:
    """The provider's charges, healthy unless a test changes it."""
    with respx.mock(base_url=PROVIDER_URL, assert_all_called=False) as mock:
        yield mock.post("/v1/charges").mock(side_effect=charge_of)


@pytest.fixture
def pay(client: httpx.AsyncClient, provider: respx.Route) -> Pay:
    """Send an order with a key."""
    assert provider is not None

    async def pay(key: str = "k", **changes: Any) -> httpx.Response:
        return await client.post(
            PAYMENTS, json={**ORDER, **changes}, headers={"Idempotency-Key": key}
        )

    return pay
