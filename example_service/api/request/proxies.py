"""What proxies in front of the service say about a request, as far as they are trusted."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from example_service.core.settings.addresses import ipv4_of_mapped
from example_service.core.settings.types import PATH_PREFIX

_PREFIX_HEADER: Final = b"x-forwarded-prefix"
_LONGEST_PREFIX: Final = 256


class ProxiesMiddleware:
    """Finds out who the client is, and below which path it sees the service.

    `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix` count if the peer is trusted. An
    IPv4 client of a socket for both kinds of addresses has its IPv4 address. A proxy that adds a
    prefix has removed it from the path, whether the header or `HTTP__ROOT_PATH` names it.

    Args:
        app: What is wrapped.
        trusted: Addresses and networks of proxies; `*` for every peer.
        root_path: Below which path clients see the service, where no header says otherwise.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str], root_path: str = "") -> None:
        self._app = app
        # The server's own knows how to read the headers; it hands the request on to this object.
        self._forwarded = ProxyHeadersMiddleware(self._serve, list(trusted))  # type: ignore[arg-type]
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is no HTTP request passes through untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["client"] = _with_plain_address(scope.get("client"))
        prefix = self._root_path
        if scope["client"] is not None and scope["client"][0] in self._forwarded.trusted_hosts:
            prefix = _prefix(scope) or prefix
        if prefix:
            # The root path is a part of the path, as ASGI has it.
            scope["root_path"] = prefix
            scope["path"] = prefix + scope["path"]
            scope["raw_path"] = prefix.encode() + scope.get("raw_path", b"")
        await self._forwarded(scope, receive, send)  # type: ignore[arg-type]

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["client"] = _with_plain_address(scope.get("client"))
        await self._app(scope, receive, send)


def _with_plain_address(client: tuple[str, int] | None) -> tuple[str, int] | None:
    if client is None or not client[0].lower().startswith("::ffff:"):
        return client
    try:
        return str(ipv4_of_mapped(ip_address(client[0]))), client[1]
    except ValueError:
        return client


def _prefix(scope: Scope) -> str:
    """The one prefix that the headers name; empty where it is none or none that can be used."""
    given = [value for name, value in scope["headers"] if name == _PREFIX_HEADER]
    if len(given) != 1 or len(given[0]) > _LONGEST_PREFIX:
        return ""
    prefix = given[0].decode("latin-1").strip().rstrip("/")
    return prefix if re.fullmatch(PATH_PREFIX, prefix) else ""
