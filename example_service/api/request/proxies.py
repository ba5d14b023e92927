"""Headers of trusted proxies in front of the service."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final, TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import _parse_host_port, _TrustedHosts

from example_service.core.settings.addresses import ipv4_of_mapped
from example_service.core.settings.types import PATH_PREFIX

_MAX_PREFIX_LENGTH: Final = 256
_MAX_PROXIES: Final = 32
# A request over HTTP has none of the schemes of WebSockets, which some proxies send.
_SCHEMES: Final = {"http": "http", "ws": "http", "https": "https", "wss": "https"}

Client: TypeAlias = tuple[str, int] | None
"""The address and the port of a peer; None for a socket in the file system."""

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


class RootPath:
    """The path prefix under which clients see the service.

    A trusted proxy names it in `X-Forwarded-Prefix`. Otherwise it is `root_path`.

    Args:
        trusted: Addresses and networks of proxies. `*` trusts every peer.
        root_path: The prefix of requests without the header.
    """

    def __init__(self, trusted: Sequence[str], root_path: str = "") -> None:
        self._trusted = _trusted_hosts(trusted)
        self._root_path = root_path

    def of(self, client: Client, headers: Headers) -> str:
        """Return the prefix for a request of this client. Empty if there is none.

        Args:
            client: The peer, as `with_plain_address` returns it.
            headers: The headers of the request.
        """
        if not _is_trusted(client, self._trusted):
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
        self._trusted = _trusted_hosts(trusted)
        self._prefix = RootPath(trusted, root_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request. Other connections are passed through."""
        if scope["type"] == "http":
            peer = scope["client"] = with_plain_address(scope.get("client"))
            headers = scope["headers"]
            if prefix := self._prefix.of(peer, headers):
                # In ASGI, the path includes the root path.
                scope["root_path"] = prefix
                # `OPTIONS *` has no path.
                if scope["path"] != "*":
                    scope["path"] = prefix + scope["path"]
                    scope["raw_path"] = prefix.encode() + scope.get("raw_path", b"")
            if _is_trusted(peer, self._trusted):
                scope["client"] = self._client(peer, headers)
                scope["scheme"] = _scheme(headers) or scope["scheme"]
        await self._app(scope, receive, send)

    def _client(self, peer: Client, headers: Headers) -> Client:
        """Follow `X-Forwarded-For` from a trusted peer to the first client that is not trusted.

        A value that is not an address ends the list: it is unknown what the rest belongs to.
        """
        client = peer
        for value in reversed(_listed(headers, b"x-forwarded-for")):
            if (named := _address(value)) is None:
                break
            client = named
            if not _is_trusted(client, self._trusted):
                break
        return client


def with_plain_address(client: Client) -> Client:
    """Convert an IPv4-mapped address of a client to IPv4, and others to their usual notation."""
    if client is None or ":" not in client[0]:
        return client
    try:
        return _plain(client[0]), client[1]
    except ValueError:
        return client


def _plain(address: str) -> str:
    return str(ipv4_of_mapped(ip_address(address)))


def _trusted_hosts(trusted: Sequence[str]) -> _TrustedHosts:
    return _TrustedHosts("*" if "*" in trusted else list(trusted))


def _is_trusted(client: Client, trusted: _TrustedHosts) -> bool:
    return (client[0] if client else None) in trusted


def _listed(headers: Headers, name: bytes) -> list[str]:
    """Return the members of a list, which may be in several headers. Empty ones do not count.

    Only the last members are separated, because examining thousands would block the event loop. The
    first one then contains commas, so it is not valid.
    """
    whole = b",".join(value for given, value in headers if given == name).decode("latin-1")
    return [member for part in whole.rsplit(",", _MAX_PROXIES) if (member := part.strip(" \t"))]


def _address(value: str) -> Client:
    """Read an address with or without a port. None if it is something else, such as `unknown`."""
    host, port = _parse_host_port(value)
    try:
        # A zone only has a meaning on the machine of the proxy.
        return _plain(host.partition("%")[0]), port
    except ValueError:
        return None


def _scheme(headers: Headers) -> str | None:
    """Return the scheme that the first proxy has reported. None if it is missing or unknown."""
    named = _listed(headers, b"x-forwarded-proto")
    return _SCHEMES.get(named[0].lower()) if named else None


def _prefix(headers: Headers) -> str:
    """Return the prefix in the headers. Empty if there is none, or an invalid one.

    Each proxy in a chain adds what it has removed from the path, so the parts are joined.
    """
    parts = [part.rstrip("/") for part in _listed(headers, b"x-forwarded-prefix")]
    prefix = "".join(parts)
    is_valid = len(prefix) <= _MAX_PREFIX_LENGTH and all(
        re.fullmatch(PATH_PREFIX, part) for part in parts if part
    )
    return prefix if is_valid else ""
