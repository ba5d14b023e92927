"""Headers of trusted proxies in front of the service."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from typing import Final, TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts

from example_service.core.settings.addresses import ipv4_of_mapped
from example_service.core.settings.types import PATH_PREFIX

_PREFIX_HEADER: Final = b"x-forwarded-prefix"
_MAX_PREFIX_LENGTH: Final = 256
_MAPPED_BITS: Final = 96

Client: TypeAlias = tuple[str, int] | None
"""The address and the port of a peer; None for a socket in the file system."""


class RootPath:
    """The path prefix under which clients see the service.

    A trusted proxy names it in `X-Forwarded-Prefix`. Otherwise it is `root_path`.

    Args:
        trusted: Addresses and networks of proxies. `*` trusts every peer.
        root_path: The prefix of requests without the header.
    """

    def __init__(self, trusted: Sequence[str], root_path: str = "") -> None:
        self._trusted = _TrustedHosts(_with_mapped(trusted))
        self._root_path = root_path

    def of(self, client: Client, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the prefix for a request of this client. Empty if there is none.

        Args:
            client: The peer, as `with_plain_address` returns it.
            headers: The headers of the request.
        """
        if client is None or client[0] not in self._trusted:
            return self._root_path
        return _prefix(headers) or self._root_path


class ProxiesMiddleware:
    """Sets the client's address, the scheme and the root path of a request.

    `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix` are used if the peer is trusted.
    An IPv4-mapped IPv6 address becomes an IPv4 address, and other IPv6 addresses get their usual
    notation. A proxy is expected to remove the prefix from the path, whether the prefix comes from
    the header or from `HTTP__ROOT_PATH`.

    Args:
        app: The application to wrap.
        trusted: Addresses and networks of proxies. `*` trusts every peer.
        root_path: The path prefix for clients, unless a header names one.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str], root_path: str = "") -> None:
        self._app = app
        # uvicorn's middleware parses the headers and then calls `_serve`.
        self._forwarded = ProxyHeadersMiddleware(self._serve, _with_mapped(trusted))  # type: ignore[arg-type]
        self._prefix = RootPath(trusted, root_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request. Other connections are passed through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["client"] = with_plain_address(scope.get("client"))
        if prefix := self._prefix.of(scope["client"], scope["headers"]):
            # In ASGI, the path includes the root path.
            scope["root_path"] = prefix
            # `OPTIONS *` has no path.
            if scope["path"] != "*":
                scope["path"] = prefix + scope["path"]
                scope["raw_path"] = prefix.encode() + scope.get("raw_path", b"")
        await self._forwarded(scope, receive, send)  # type: ignore[arg-type]

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["client"] = with_plain_address(scope.get("client"))
        await self._app(scope, receive, send)


def with_plain_address(client: Client) -> Client:
    """Convert an IPv4-mapped address of a client to IPv4, and others to their usual notation."""
    if client is None or ":" not in client[0]:
        return client
    try:
        return str(ipv4_of_mapped(ip_address(client[0]))), client[1]
    except ValueError:
        return client


def _with_mapped(trusted: Sequence[str]) -> list[str]:
    """Add the IPv4-mapped form of each IPv4 network, which proxies with IPv6 sockets report."""
    ipv4 = [ip_network(proxy) for proxy in trusted if proxy != "*" and ":" not in proxy]
    mapped = [
        f"::ffff:{network.network_address}/{_MAPPED_BITS + network.prefixlen}" for network in ipv4
    ]
    return [*trusted, *mapped]


def _prefix(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the prefix in the headers. Empty unless there is exactly one and it is valid."""
    given = [value for name, value in headers if name == _PREFIX_HEADER]
    if len(given) != 1 or len(given[0]) > _MAX_PREFIX_LENGTH:
        return ""
    prefix = given[0].strip(b" \t").decode("latin-1").rstrip("/")
    return prefix if re.fullmatch(PATH_PREFIX, prefix) else ""
