"""Templates of routes, as labels."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from example_service.api.route_table import UNMATCHED, RouteTable, allowed_methods


async def _item() -> str:
    return "here"


@pytest.fixture
def app() -> FastAPI:
    """An application with a router that is included twice, at different depths."""
    innermost = APIRouter(prefix="/inner/{x}")
    innermost.get("/items/{i}")(_item)
    innermost.post("/items/{i}")(_item)
    middle = APIRouter(prefix="/mid")
    middle.include_router(innermost)
    app = FastAPI()
    app.include_router(middle, prefix="/api/v1")
    app.include_router(innermost, prefix="/api/v2")

    @app.get("/files/{path:path}")
    async def files(path: str) -> str:
        return path

    @app.get("/plain")
    async def plain() -> None:
        pass

    return app


def routed(app: FastAPI, path: str, method: str = "GET") -> Scope:
    """The scope of a request after the application has handled it."""
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(_: object) -> None:
        pass

    asyncio.run(app(scope, receive, send))
    return scope


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/api/v1/mid/inner/1/items/2", "/api/v1/mid/inner/{x}/items/{i}"),
        ("/api/v2/inner/1/items/2", "/api/v2/inner/{x}/items/{i}"),
        ("/files/a/b/c", "/files/{path}"),
        ("/plain", "/plain"),
        ("/docs", "/docs"),
        ("/openapi.json", "/openapi.json"),
        ("/nowhere", UNMATCHED),
        ("/api/v1/inner/1/items/2", UNMATCHED),
        ("/plain/", UNMATCHED),
    ],
)
def test_the_template_has_every_prefix(app: FastAPI, path: str, template: str) -> None:
    """A router that is included twice has two templates, told apart by the path."""
    table = RouteTable(app.routes)
    assert [table.template(routed(app, path)) for _ in range(2)] == [template, template]


def test_both_inclusions_are_told_apart_by_one_table(app: FastAPI) -> None:
    """The endpoint is the same, so that what was found for one path must not stick."""
    table = RouteTable(app.routes)
    paths = ("/api/v1/mid/inner/1/items/2", "/api/v2/inner/1/items/2") * 2
    templates = [table.template(routed(app, path)) for path in paths]
    assert templates == ["/api/v1/mid/inner/{x}/items/{i}", "/api/v2/inner/{x}/items/{i}"] * 2


def test_a_wrong_method_keeps_the_template(app: FastAPI) -> None:
    """A 405 belongs to the route that it was meant for."""
    assert RouteTable(app.routes).template(routed(app, "/plain", "DELETE")) == "/plain"


def test_routes_may_come_later(app: FastAPI) -> None:
    """The table is not older than the request."""
    table = RouteTable(app.routes)
    table.template(routed(app, "/plain"))
    app.get("/late/{x}")(_item)
    assert table.template(routed(app, "/late/1")) == "/late/{x}"


def test_an_endpoint_need_not_be_hashable(app: FastAPI) -> None:
    """What is mounted may be any application."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("here")(scope, receive, send)

    app.mount("/raw", Unhashable())
    assert RouteTable(app.routes).template(routed(app, "/raw/anything")) == "/raw"


@pytest.mark.parametrize("path", ["/1/deeper", "/nowhere/at/all", ""])
def test_a_mounted_application_is_labelled_by_its_mount(app: FastAPI, path: str) -> None:
    """Also where it is mounted twice, and where it finds nothing."""

    async def endpoint(_: object) -> PlainTextResponse:
        return PlainTextResponse("here")

    below: ASGIApp = Starlette(routes=[Route("/{a}/deeper", endpoint)])
    app.mount("/first", below)
    app.mount("/second", below)
    table = RouteTable(app.routes)
    assert table.template(routed(app, f"/second{path}/")) == "/second"
    assert table.template(routed(app, f"/first{path}/")) == "/first"


def test_all_methods_of_a_path_are_allowed(app: FastAPI) -> None:
    """They may belong to different routes, of included routers too."""
    assert allowed_methods(routed(app, "/api/v2/inner/1/items/2", "PUT")) == [
        "GET",
        "HEAD",
        "POST",
    ]
    assert allowed_methods(routed(app, "/docs", "PUT")) == ["GET", "HEAD"]
    assert allowed_methods(routed(app, "/nowhere", "PUT")) == []
