"""The paths and headers of the API documentation pages."""

import httpx
import pytest

from example_service.core.settings import Settings
from example_service.core.settings.model import DocsSettings
from example_service.main import create_app
from tests.application import Serve

PATHS = ["/docs", "/redoc", "/openapi.json", "/docs/swagger-ui.css", "/redoc/logo-mini.svg"]


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(create_app(Settings(environment="test")))


@pytest.mark.parametrize("path", PATHS)
async def test_they_are_there_unless_switched_off(serve: Serve, path: str) -> None:
    """`DOCS__ENABLED=false` removes the pages, their files and the OpenAPI document."""
    on = await serve(create_app(Settings(environment="test")))
    off = await serve(create_app(Settings(environment="test", docs=DocsSettings(enabled=False))))

    assert (await on.get(path)).status_code == 200
    assert (await off.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_scripts_come_from_the_service_alone(client: httpx.AsyncClient, path: str) -> None:
    """Pages name no other host, and their policy allows no other and no inline script."""
    response = await client.get(path)

    assert "//" not in response.text.replace("<!-- `", "")
    policy = dict(
        part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    assert policy["frame-ancestors"] == "'none'"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_head_is_answered_too(client: httpx.AsyncClient, path: str) -> None:
    """HEAD works as on the other pages."""
    response = await client.head(path)

    assert (response.status_code, response.content) == (200, b"")
