"""Reads the body, the query and the headers of a request strictly.

FastAPI uses the last of several query parameters with the same name, and the first of several
headers. A proxy or a log that uses another one would see another request than the service.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams

from example_service.api.problems.validation import REPEATED
from example_service.api.request.strict_json import parse_json


class StrictRoute(APIRoute):
    """The route class for routes that read a body, query parameters or headers.

        router = APIRouter(route_class=StrictRoute)

    - The body is parsed by `parse_json`.
    - A query parameter or a header that is repeated is refused with status 422, unless its type is
      a list.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that reads requests strictly."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())

    @property
    def query_params(self) -> QueryParams:
        if not hasattr(self, "_query_params"):
            self._query_params = _SingleParameters(self.scope["query_string"])
        return self._query_params

    @property
    def headers(self) -> Headers:
        if not hasattr(self, "_headers"):
            self._headers = _SingleHeaders(scope=self.scope)
        return self._headers


class _SingleParameters(QueryParams):
    """Query parameters. FastAPI calls `getlist` instead of `get` if the type is a list."""

    def get(self, key: str, default: Any = None) -> Any:
        return _only(self.getlist(key), "query", key, default)


class _SingleHeaders(Headers):
    """Headers. FastAPI calls `getlist` instead of `get` if the type is a list."""

    def get(self, key: str, default: Any = None) -> Any:
        return _only(self.getlist(key), "header", key, default)


def _only(values: list[str], place: str, name: str, default: Any) -> Any:
    """Return the only value, or the default if there is none.

    Raises:
        RequestValidationError: If there are several, even if they are equal.
    """
    if len(values) > 1:
        raise RequestValidationError([{"loc": (place, name), "type": REPEATED}])
    return values[0] if values else default
