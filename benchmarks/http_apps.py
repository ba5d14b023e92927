"""The same small route in each of the applications that the HTTP benchmarks compare."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from prometheus_client import CollectorRegistry
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from example_service.api.dependencies import circuit_breaker
from example_service.core.settings import Settings
from example_service.core.settings.model import LogSettings
from example_service.infra.resilience import CircuitBreaker
from example_service.main import create_app

BARE = "bare FastAPI"
BARE_AGAIN = "bare FastAPI, once more"
NO_OPERATION = "and a middleware that does nothing"
GUARDED = "and a breaker around the route's work"
GUARDED_FUNCTION = "and a breaker on the function that it calls"
GUARDED_BY_DEPENDENCY = "and a breaker from Depends around it"
OURS_WITHOUT_ACCESS_LINE = "example_service, no access line"
OURS = "example_service"
USUAL_STACK = "the usual stack"

ROUTE = "/items/{item_id}"
PATH = "/items/42"

# The packages of the usual stack besides Starlette.
_USUAL_PACKAGES = ("prometheus_fastapi_instrumentator", "asgi_correlation_id")

access_logger = logging.getLogger("benchmarks.access")


async def read_item(item_id: int) -> dict[str, int]:
    """Every application's response: little work, but all that FastAPI does for a route."""
    return {"item_id": item_id}


def bare() -> FastAPI:
    """Plain FastAPI with one route."""
    app = FastAPI()
    app.get(ROUTE)(read_item)
    return app


def guarded() -> FastAPI:
    """The bare application with a breaker's block inside its route."""
    breaker = CircuitBreaker("guarded")
    app = FastAPI()

    @app.get(ROUTE)
    async def read_guarded_item(item_id: int) -> dict[str, int]:
        async with breaker:
            return {"item_id": item_id}

    return app


def guarded_function() -> FastAPI:
    """The bare application with a route that calls a guarded function."""
    breaker = CircuitBreaker("guarded function")
    app = FastAPI()
    guarded_read = breaker.protected(read_item)

    @app.get(ROUTE)
    async def read_guarded_item(item_id: int) -> dict[str, int]:
        return await guarded_read(item_id)

    return app


def guarded_by_dependency() -> FastAPI:
    """The bare application with a breaker injected by name."""
    app = FastAPI()

    @app.get(ROUTE)
    async def read_guarded_item(
        item_id: int, breaker: Annotated[CircuitBreaker, Depends(circuit_breaker("injected"))]
    ) -> dict[str, int]:
        async with breaker:
            return {"item_id": item_id}

    return app


def ours(*, access_line: bool) -> FastAPI:
    """The whole service with everything enabled and the route added before its own.

    Routes are matched in order, so behind a dozen others this would compare routers.
    """
    settings = Settings(environment="test", log=LogSettings(format="json", access=access_line))
    app = create_app(settings)
    app.get(ROUTE)(read_item)
    app.router.routes.insert(0, app.router.routes.pop())
    return app


class NoOperation:
    """The smallest ASGI middleware, which passes everything on.

    Args:
        app: The application inside it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await self._app(scope, receive, send)


def with_no_operation() -> FastAPI:
    """The bare application inside a middleware that does nothing."""
    app = bare()
    app.add_middleware(NoOperation)
    return app


def usual_stack() -> FastAPI:
    """A common combination instead: two packages and three `BaseHTTPMiddleware`s."""
    instrumentator, correlation = (import_module(name) for name in _USUAL_PACKAGES)
    access_logger.setLevel(logging.INFO)
    access_logger.propagate = False
    access_logger.handlers = [logging.StreamHandler(sys.stdout)]
    app = bare()
    for dispatch in (_security_headers, _process_time, _access_line):
        app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    app.add_middleware(correlation.CorrelationIdMiddleware)
    instrumentator.Instrumentator(registry=CollectorRegistry()).instrument(app)
    return app


def load_applications() -> tuple[Mapping[str, Callable[[], FastAPI]], list[str]]:
    """Return the factories of all applications that can be created here.

    Returns:
        The applications by name, and the packages for which the usual stack is left out.
    """
    applications: dict[str, Callable[[], FastAPI]] = {
        BARE: bare,
        BARE_AGAIN: bare,
        NO_OPERATION: with_no_operation,
        GUARDED: guarded,
        GUARDED_FUNCTION: guarded_function,
        GUARDED_BY_DEPENDENCY: guarded_by_dependency,
        OURS_WITHOUT_ACCESS_LINE: partial(ours, access_line=False),
        OURS: partial(ours, access_line=True),
    }
    missing = [name for name in _USUAL_PACKAGES if find_spec(name) is None]
    if not missing:
        applications[USUAL_STACK] = usual_stack
    return applications, missing


async def _access_line(request: Request, call_next: RequestResponseEndpoint) -> Response:
    begin = perf_counter()
    response = await call_next(request)
    line = {
        "method": request.method,
        "path": request.url.path,
        "status": response.status_code,
        "duration": perf_counter() - begin,
        "client": request.client.host if request.client else None,
        "request_id": response.headers.get("x-request-id"),
    }
    access_logger.info(json.dumps(line))
    return response


async def _process_time(request: Request, call_next: RequestResponseEndpoint) -> Response:
    begin = perf_counter()
    response = await call_next(request)
    response.headers["X-Process-Time"] = f"{perf_counter() - begin:.6f}"
    return response


async def _security_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    return response
