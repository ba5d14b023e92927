"""How the dashboard is served; integration tests show it in a browser."""

import asyncio
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from example_service.api.dashboard import feed
from example_service.core.settings import Settings
from example_service.core.settings.model import AdminSettings, DashboardSettings, HTTPSettings
from example_service.main import create_app
from example_service.payments.settings import PaymentProviderSettings
from tests.application import Serve

if TYPE_CHECKING:
    from collections.abc import MutableMapping

TOKEN = "Zk3vq0YJ5b-8sWmR1tXeL9aHcU7dNfGi"
FILES = sorted(
    file.name
    for file in files("example_service.api.dashboard").joinpath("page").iterdir()
    if file.name != "index.html"
)


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(create_app(Settings(environment="test")))


def production(**different: Any) -> Settings:
    """Production settings with SQLite instead of a real database."""
    return Settings(
        environment="production",
        admin=AdminSettings(token=SecretStr(TOKEN)),
        payment_provider=PaymentProviderSettings(base_url="https://api.payment-provider.com"),
        http=HTTPSettings(allowed_hosts=["service.test"]),
        **different,
    )


async def first_message(app: FastAPI, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """The status of the stream and its first message, or the problem if it is refused."""
    sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/dashboard/events",
        "raw_path": b"/dashboard/events",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"service.test")]
        + [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 50000),
        "server": ("service.test", 80),
    }

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(10):
        task = asyncio.create_task(app(scope, receive, sent.put))
        start, body = await sent.get(), (await sent.get())["body"].decode()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return start["status"], json.loads(body.removeprefix("data: "))


@pytest.mark.parametrize("name", FILES)
async def test_every_file_of_the_page_is_served(client: httpx.AsyncClient, name: str) -> None:
    """Every script and style named by the page or by another script is served."""
    response = await client.get(f"/dashboard/{name}")
    texts = [(await client.get(f"/dashboard/{each}")).text for each in FILES]
    texts.append((await client.get("/dashboard")).text)

    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(("text/javascript", "text/css"))
    assert any(f'/{name}"' in text for text in texts)


async def test_the_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """It names no other host; the one URL in it identifies an XML namespace."""
    for path in ("/dashboard", *(f"/dashboard/{name}" for name in FILES)):
        text = (await client.get(path)).text
        assert re.findall(r"https?://\S*?\"", text) in ([], ['http://www.w3.org/2000/svg"'])


async def test_the_policy_allows_only_files_of_the_service(client: httpx.AsyncClient) -> None:
    """No inline script or style, no other host, and no framing of the page."""
    response = await client.get("/dashboard")

    policy = dict(
        part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not re.search(r"<script>|<style|style=|\son\w+=", response.text)


async def test_the_root_redirects_to_it(client: httpx.AsyncClient) -> None:
    """The redirect is relative, so that it works behind a proxy with an unknown path prefix."""
    response = await client.get("/")

    assert response.status_code == 307
    assert response.headers["Location"] == "dashboard"


async def test_the_redirect_has_the_path_prefix_if_it_is_known(serve: Serve) -> None:
    """A relative URL would lead elsewhere if the client's URL is `/shop` without a slash."""
    http = HTTPSettings(root_path="/shop")
    client = await serve(create_app(Settings(environment="test", http=http)))

    assert (await client.get("/")).headers["Location"] == "/shop/dashboard"


@pytest.mark.parametrize("path", ["/", "/dashboard"])
async def test_head_is_answered_too(client: httpx.AsyncClient, path: str) -> None:
    """HEAD works as on the other pages."""
    response = await client.head(path)

    assert response.status_code in {200, 307}
    assert response.content == b""


@pytest.mark.parametrize("path", ["/", "/dashboard", "/dashboard/main.js", "/dashboard/events"])
async def test_it_is_off_in_production(serve: Serve, path: str) -> None:
    """Unless it is enabled, none of its paths exist."""
    client = await serve(create_app(production()))

    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_in_production_the_stream_needs_the_token(serve: Serve, token: str | None) -> None:
    """The page itself is open, so that it can ask for the token."""
    app = create_app(production(dashboard=DashboardSettings(enabled=True)))
    client = await serve(app)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}

    refused = await client.get("/dashboard/events", headers=headers)

    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/unauthorized")
    assert (await client.get("/dashboard")).status_code == 200
    status, message = await first_message(app, {"authorization": f"Bearer {TOKEN}"})
    assert (status, message["service"]["environment"]) == (200, "production")


async def test_elsewhere_the_stream_needs_no_token(serve: Serve) -> None:
    """Its first message names the service and says whether administration is enabled."""
    app = create_app(Settings(environment="test"))
    await serve(app)

    status, message = await first_message(app, {})

    assert status == 200
    assert message["service"]["hasAdmin"] is False
    assert {circuit["name"] for circuit in message["circuits"]} >= {"database", "payment"}


async def test_the_number_of_open_pages_is_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page above the limit is asked to come back later."""
    monkeypatch.setattr("example_service.api.routers.dashboard.MAX_PAGES", 0)

    response = await client.get("/dashboard/events")

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert feed.MAX_PAGES > 0
