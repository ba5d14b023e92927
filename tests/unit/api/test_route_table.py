"""Route templates as labels."""

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
    """A router that is included twice has two templates, distinguished by the path."""
    table = RouteTable(app.routes)
    assert [table.template(routed(app, path)) for _ in range(2)] == [template, template]


def test_one_table_distinguishes_both_inclusions(app: FastAPI) -> None:
    """Both have the same endpoint, so the result for one path must not be reused for the other."""
    table = RouteTable(app.routes)
    paths = ("/api/v1/mid/inner/1/items/2", "/api/v2/inner/1/items/2") * 2
    templates = [table.template(routed(app, path)) for path in paths]
    assert templates == ["/api/v1/mid/inner/{x}/items/{i}", "/api/v2/inner/{x}/items/{i}"] * 2


def test_a_wrong_method_keeps_the_template(app: FastAPI) -> None:
    """A 405 is counted for the route with that path."""
    assert RouteTable(app.routes).template(routed(app, "/plain", "DELETE")) == "/plain"


def test_routes_may_be_added_later(app: FastAPI) -> None:
    """The table follows the routes of the application."""
    table = RouteTable(app.routes)
    table.template(routed(app, "/plain"))
    app.get("/late/{x}")(_item)
    assert table.template(routed(app, "/late/1")) == "/late/{x}"


def test_an_endpoint_need_not_be_hashable(app: FastAPI) -> None:
    """Any application can be mounted."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("here")(scope, receive, send)

    app.mount("/raw", Unhashable())
    assert RouteTable(app.routes).template(routed(app, "/raw/anything")) == "/raw"


@pytest.mark.parametrize("path", ["/1/deeper", "/nowhere/at/all", ""])
def test_a_mounted_application_is_labelled_with_its_mount_path(app: FastAPI, path: str) -> None:
    """This applies to an application mounted twice, and to paths that it does not know."""

    async def endpoint(_: object) -> PlainTextResponse:
        return PlainTextResponse("here")

    below: ASGIApp = Starlette(routes=[Route("/{a}/deeper", endpoint)])
    app.mount("/first", below)
    app.mount("/second", below)
    table = RouteTable(app.routes)
    assert table.template(routed(app, f"/second{path}/")) == "/second"
    assert table.template(routed(app, f"/first{path}/")) == "/first"


def test_all_methods_of_a_path_are_allowed(app: FastAPI) -> None:
    """They may belong to different routes, including those of included routers."""
    assert allowed_methods(routed(app, "/api/v2/inner/1/items/2", "PUT")) == [
        "GET",
        "HEAD",
        "POST",
    ]
    assert allowed_methods(routed(app, "/docs", "PUT")) == ["GET", "HEAD"]
    assert allowed_methods(routed(app, "/nowhere", "PUT")) == []
