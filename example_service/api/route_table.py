"""Route templates for metrics, log lines and `Allow` headers.

Since FastAPI 0.137, included routers are not flattened, and `scope["route"].path` lacks the
prefixes of the routers around it. `iter_route_contexts` is the public API for full templates.
"""

from collections.abc import Sequence

from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

UNMATCHED = "unmatched"
"""The label of requests that match no route, so that scanners do not create new labels."""


class RouteTable:
    """Finds the template of the route that served a request.

    The routes are read at the first request, and again for each endpoint that is not known yet.

    Args:
        routes: The routes of the application. Routes may be added later.

    Attributes:
        certain: The templates of the endpoints that have a single one, by `id` of the endpoint. An
            endpoint may not be hashable; the routes keep it alive, so that its `id` stays unique.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self.certain = {id(None): UNMATCHED}
        self._routes = routes
        self._candidates: dict[int, list[RouteContext]] = {}

    def template(self, scope: Scope) -> str:
        """Return the template of the route that served a request.

        Args:
            scope: The ASGI scope, after the application has handled the request.

        Returns:
            The full path as it was declared, with its parameters and the prefixes of routers. For a
            mounted application, the path of the mount. `UNMATCHED` if no route matches.
        """
        key = id(scope.get("endpoint"))
        if key not in self.certain and key not in self._candidates:
            self._find(key, scope)
        if key in self.certain:
            return self.certain[key]
        return next(
            (_label(context) for context in self._candidates[key] if _has_served(context, scope)),
            UNMATCHED,
        )

    def _find(self, key: int, scope: Scope) -> None:
        """Store the template of an endpoint, or its routes if it has several templates."""
        contexts = list(iter_route_contexts(self._routes))
        own = [context for context in contexts if id(_endpoint(context)) == key]
        if not own:
            # A mounted application does its own routing and sets its own endpoint.
            own = [
                context
                for context in contexts
                if _is_mount(context) and _has_served(context, scope)
            ][:1]
        if len({_label(context) for context in own}) > 1:
            self._candidates[key] = own
        else:
            self.certain[key] = _label(own[0]) if own else UNMATCHED


def allowed_methods(scope: Scope) -> list[str]:
    """List the methods that the application supports for the path of a request, in sorted order.

    The service supports `HEAD` wherever it supports `GET`.
    """
    matching = (
        context for context in iter_route_contexts(scope["app"].routes) if _matches(context, scope)
    )
    methods = {method for context in matching for method in context.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _is_mount(route: RouteContext) -> bool:
    return isinstance(route.original_route, Mount)


def _endpoint(route: RouteContext) -> object:
    return route.app if _is_mount(route) else route.endpoint


def _label(route: RouteContext) -> str:
    # The `path_format` of a mount ends in a parameter for the rest of the path.
    return (route.path if _is_mount(route) else route.path_format) or UNMATCHED


def _has_served(route: RouteContext, scope: Scope) -> bool:
    """Whether this route served the request."""
    if _is_mount(route):
        return str(scope.get("root_path", "")).endswith(_label(route))
    return _matches(route, scope)


def _matches(route: RouteContext, scope: Scope) -> bool:
    match, _ = route.matches(scope)
    return bool(match != Match.NONE)
