"""The templates of routes, for metrics, log lines and `Allow` headers.

Since FastAPI 0.137 an included router stays a tree, and `scope["route"].path` lacks the prefixes
under which it was included. `iter_route_contexts` is the public way to the full templates.
"""

from collections.abc import Sequence

from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

UNMATCHED = "unmatched"
"""The label of every request that matches no route, so that scanners create no new labels."""


class RouteTable:
    """Finds the template of the route that served a request.

    The routes are read at the first request, and again for an endpoint that is not known yet.

    Args:
        routes: The routes of the application; may grow until they are read.

    Attributes:
        certain: The template for the `id` of each endpoint that has only one. By identity, as an
            endpoint need not be hashable; the routes keep the endpoints alive.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self.certain = {id(None): UNMATCHED}
        self._routes = routes
        self._candidates: dict[int, list[RouteContext]] = {}

    def template(self, scope: Scope) -> str:
        """Return the template of the route that served a request.

        Args:
            scope: ASGI scope after the application has handled it.

        Returns:
            The path with its parameters as they were declared, prefixes of routers included; the
            path of the mount for what a mounted application served; `UNMATCHED` for no route.
        """
        key = id(scope.get("endpoint"))
        if key not in self.certain and key not in self._candidates:
            self._find(key, scope)
        if key in self.certain:
            return self.certain[key]
        return next((_label(one) for one in self._candidates[key] if _took(one, scope)), UNMATCHED)

    def _find(self, key: int, scope: Scope) -> None:
        """Look an endpoint up: its template, or the routes among which the path decides."""
        contexts = list(iter_route_contexts(self._routes))
        own = [one for one in contexts if id(_endpoint(one)) == key]
        if not own:
            # An application mounted below routes by itself and leaves its own endpoint behind.
            own = [one for one in contexts if _is_mount(one) and _took(one, scope)][:1]
        if len({_label(one) for one in own}) > 1:
            self._candidates[key] = own
        else:
            self.certain[key] = _label(own[0]) if own else UNMATCHED


def allowed_methods(scope: Scope) -> list[str]:
    """List the methods that the application has for the path of a request, in order of name.

    The service answers `HEAD` wherever it answers `GET`.
    """
    matching = (one for one in iter_route_contexts(scope["app"].routes) if _matches(one, scope))
    methods = {method for one in matching for method in one.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _is_mount(route: RouteContext) -> bool:
    return isinstance(route.original_route, Mount)


def _endpoint(route: RouteContext) -> object:
    return route.app if _is_mount(route) else route.endpoint


def _label(route: RouteContext) -> str:
    # The format of a mount ends in a parameter for the path below it.
    return (route.path if _is_mount(route) else route.path_format) or UNMATCHED


def _took(route: RouteContext, scope: Scope) -> bool:
    """Whether a request was served by this route."""
    if _is_mount(route):
        return str(scope.get("root_path", "")).endswith(_label(route))
    return _matches(route, scope)


def _matches(route: RouteContext, scope: Scope) -> bool:
    match, _ = route.matches(scope)
    return bool(match != Match.NONE)
