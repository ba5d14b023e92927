"""The page itself; what it shows in a browser stands in the integration tests."""

import base64
import hashlib
import re

import httpx
import pytest

from example_service.core.settings import Settings
from example_service.main import create_app
from tests.application import Serve


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(create_app(Settings(environment="test")))


async def test_the_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """It works without the internet, and tells nobody who looks at it."""
    response = await client.get("/dashboard")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>Circuit breakers</title>" in response.text
    assert "//" not in re.sub(r"^ *// .*$", "", response.text, flags=re.MULTILINE)


@pytest.mark.parametrize("tag", ["script", "style"])
async def test_the_browser_is_told_to_run_nothing_else(client: httpx.AsyncClient, tag: str) -> None:
    """A script that somebody smuggled in has another digest, and no other source is allowed."""
    response = await client.get("/dashboard")

    policy = dict(
        part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; ")
    )
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"


async def test_the_bare_address_leads_there(client: httpx.AsyncClient) -> None:
    """Whoever types no path sees something, below a path of a proxy as well."""
    response = await client.get("/")

    assert response.status_code == 307
    assert response.headers["Location"] == "dashboard"


@pytest.mark.parametrize("path", ["/", "/dashboard"])
async def test_head_is_answered_too(client: httpx.AsyncClient, path: str) -> None:
    """As by the other pages."""
    response = await client.head(path)

    assert response.status_code in {200, 307}
    assert response.content == b""
