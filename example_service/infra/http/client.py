"""Create the clients for outgoing HTTP requests."""

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, cast

import httpx

from example_service import __version__
from example_service.core import context
from example_service.infra.http.environment import usable_exceptions
from example_service.infra.http.pool import ReclaimingTransport

_KEEPALIVE_EXPIRY_SECONDS: Final = 4.0
"""Less than 5 seconds, after which many servers close an idle connection: otherwise a request could
be sent on a connection that is being closed."""

_NEVER_PROXIED: Final = ("all://localhost", "all://127.0.0.1", "all://[::1]")


def create_http_client(
    *,
    timeout_seconds: float = 2.0,
    connect_timeout_seconds: float = 1.0,
    max_connections: int = 100,
) -> httpx.AsyncClient:
    """Create a client for outgoing requests.

    The caller must close it, with `aclose` or `async with`. Keep it open as long as the service
    runs, because it reuses connections. Create one for each API that is called, so that a slow API
    does not use up the connections of the others.

    - The timeouts apply to single steps. To limit a whole call, use `asyncio.timeout`.
    - Redirects are not followed, because they lead to another address than the configured one.
    - Cookies are not stored, because different requests must not share a session.
    - The request id and the trace context of the current request are sent with every call.
    - The proxy variables of the environment apply, except for calls to this machine.

    Args:
        timeout_seconds: The time limit of each read and each write, in seconds.
        connect_timeout_seconds: The time limit of connecting, and of waiting for a free connection,
            in seconds.
        max_connections: The maximum number of concurrent connections. Further calls wait for a free
            one.
    """
    with usable_exceptions():
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
    """A client that reclaims lost connections, including connections through proxies."""

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
