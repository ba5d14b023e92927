"""Answers `OPTIONS *`, with which clients and proxies ask about the server itself."""

from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS: Final = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


class ServerOptions:
    """Answers `OPTIONS *` with 204 and `Allow` (RFC 9110, section 9.3.7).

    It is the router's default application, which is called after no route has matched.

    Args:
        default: The application for all other requests.
    """

    def __init__(self, default: ASGIApp) -> None:
        self._default = default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for the server, and pass on any other one."""
        # A path begins with a slash, so only the form `*` has this path.
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("OPTIONS", "*"):
            await Response(status_code=204, headers={"Allow": _METHODS})(scope, receive, send)
        else:
            await self._default(scope, receive, send)
