"""The service that these tests send requests to."""

import pytest

from example_service.core import context
from tests.unit.api.request.middleware.asgi import Service


@pytest.fixture
def service() -> Service:
    """A service with a route that returns what it knows about the request."""
    service = Service()

    @service.app.get("/known")
    async def known() -> list[str | None]:
        return [context.request_id(), context.traceparent()]

    return service
