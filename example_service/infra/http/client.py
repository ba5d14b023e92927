"""The one place where clients for outgoing HTTP are made."""

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, cast

import httpx

from example_service import __version__
from example_service.core import context
from example_service.infra.http.pool import ReclaimingTransport

_KEEPALIVE_EXPIRY_SECONDS: Final = 4.0
"""Below the 5 seconds after which many servers close an idle connection, so that no request is sent
into one that is being closed."""

_NEVER_PROXIED: Final = ("all://localhost", "all://127.0.0.1", "all://[::1]")


def create_http_client(
    *,
    timeout_seconds: float = 2.0,
    connect_timeout_seconds: float = 1.0,
    max_connections: int = 100,
) -> httpx.AsyncClient:
    """Build a client for calls that leave the service.

    The caller closes it (`aclose`, or `async with`). It should live as long as the service, because
    it keeps connections open. Make one for each service that is called: a slow one then takes no
    connections from the others.

    - The time limits are for single steps: a caller that wants to limit the whole exchange adds
      `asyncio.timeout`.
    - Redirects are not followed: a response from another address is not the one asked for.
    - Cookies are not kept, because the calls of different requests must not share a session.
    - The request id and the trace context of the request being served go along with every call.
    - The proxy variables of the environment count, but never for this machine itself.

    Args:
        timeout_seconds: How long each read and each write may take.
        connect_timeout_seconds: How long connecting may take, and waiting for a free connection.
        max_connections: Connections at once; further calls wait for a free one.
    """
    return _HTTPClient(
        timeout=httpx.Timeout(
            timeout_seconds, connect=connect_timeout_seconds, pool=connect_timeout_seconds
        ),
        limits=httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=_KEEPALIVE_EXPIRY_SECONDS,
        ),
        follow_redirects=False,
        headers={"User-Agent": f"example-service/{__version__}"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        event_hooks={"request": [_pass_on_context]},
        mounts=dict.fromkeys(_NEVER_PROXIED),
    )


class _HTTPClient(httpx.AsyncClient):
    """A client whose connections are all reclaimed, those through proxies as well."""

    def _init_transport(self, *args: Any, **kwargs: Any) -> httpx.AsyncBaseTransport:
        return _reclaimed(super()._init_transport(*args, **kwargs))

    def _init_proxy_transport(self, *args: Any, **kwargs: Any) -> httpx.AsyncBaseTransport:
        return _reclaimed(super()._init_proxy_transport(*args, **kwargs))


def _reclaimed(transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    return ReclaimingTransport(cast("httpx.AsyncHTTPTransport", transport))


async def _pass_on_context(request: httpx.Request) -> None:
    if (request_id := context.request_id()) is not None:
        request.headers["X-Request-ID"] = request_id
    if (traceparent := context.traceparent()) is not None:
        request.headers["traceparent"] = traceparent
        if (state := context.tracestate.get()) is not None:
            request.headers["tracestate"] = state
    if (baggage := context.baggage.get()) is not None:
        request.headers["baggage"] = baggage
