"""Clients and transports that the breaker's transport works with."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import respx

from example_service.infra.resilience import (
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
)
from tests.unit.infra.resilience_integrations.httpx.upstream import (
    ORIGIN,
    OTHER_ORIGIN,
    OTHER_URL,
    URL,
    Body,
    Recording,
    SyncWay,
    Upstream,
    Way,
    counts,
)


async def test_wrapped_transport_is_entered_and_closed_with_the_client() -> None:
    """Connections are opened and closed as they are without a breaker."""
    wrapped = Recording()
    transport = CircuitBreakerTransport(wrapped)

    with httpx.Client(transport=transport):
        pass
    httpx.Client(transport=transport).close()
    async with httpx.AsyncClient(transport=transport):
        pass
    await httpx.AsyncClient(transport=transport).aclose()
    with transport as entered:
        assert entered is transport

    assert wrapped.calls == [
        *("enter", "exit"),
        "close",
        *("aenter", "aexit"),
        "aclose",
        *("enter", "exit"),
    ]


async def test_redirect_is_followed_to_another_origin(
    way_of: Callable[[CircuitBreakerTransport], Way],
    transport: CircuitBreakerTransport,
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """Each hop counts for its own origin."""
    location = {"Location": OTHER_URL}
    upstream.answer(httpx.Response(302, headers=location, stream=Body()))
    upstream.answer(503, OTHER_URL)
    way: Any = way_of(transport)
    way.client.follow_redirects = True

    assert (await way.get()).status_code == 503

    assert counts(registry) == (0, 1, 0)
    assert counts(registry, OTHER_ORIGIN) == (1, 0, 0)


async def test_mounted_transport_guards_what_is_routed_to_it(
    make: Callable[..., CircuitBreakerTransport], registry: CircuitBreakerRegistry
) -> None:
    """A mounted transport can have different parameters for some origins."""
    picky = make(failure_threshold=1)
    async with httpx.AsyncClient(transport=make(), mounts={OTHER_ORIGIN: picky}) as client:
        await client.get(URL)
        await client.get(OTHER_URL)

    assert registry.get(ORIGIN).failure_threshold == 2
    assert registry.get(OTHER_ORIGIN).failure_threshold == 1


async def test_it_works_with_respx(
    way_of: Callable[[CircuitBreakerTransport], Way], registry: CircuitBreakerRegistry
) -> None:
    """Mocked routes of respx answer below the breakers."""
    sends: Any = httpx.HTTPTransport() if way_of is SyncWay else httpx.AsyncHTTPTransport()
    way = way_of(CircuitBreakerTransport(sends, failure_threshold=2, registry=registry))
    with respx.mock as routes:
        routes.get(OTHER_URL).respond(json={"rate": "0.92"})
        routes.get(URL).mock(side_effect=[httpx.ConnectError, httpx.Response(503)])

        assert (await way.get(OTHER_URL)).json() == {"rate": "0.92"}
        with pytest.raises(httpx.ConnectError):
            await way.get()
        assert (await way.get()).status_code == 503
        with pytest.raises(CircuitOpenError):
            await way.get()

    assert counts(registry) == (2, 0, 0)
    assert counts(registry, OTHER_ORIGIN) == (0, 1, 0)


async def test_works_with_an_asgi_application(registry: CircuitBreakerRegistry) -> None:
    """An application's status and body count like those from the network."""

    async def application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        status = 500 if scope["path"] == "/broken" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})

    wrapped = httpx.ASGITransport(app=application)
    transport = CircuitBreakerTransport(wrapped, registry=registry)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        assert (await client.get("/")).content == b"answer"
        assert (await client.get("/broken")).status_code == 500

    assert counts(registry) == (1, 1, 0)


def test_works_with_a_wsgi_application(registry: CircuitBreakerRegistry) -> None:
    """An application's status and body count like those from the network."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        broken = environ["PATH_INFO"] == "/broken"
        start_response("500 Broken" if broken else "200 OK", [])
        return [b"answer"]

    wrapped = httpx.WSGITransport(app=application)
    transport = CircuitBreakerTransport(wrapped, registry=registry)
    with httpx.Client(transport=transport, base_url=ORIGIN) as client:
        assert client.get("/").content == b"answer"
        assert client.get("/broken").status_code == 500

    assert counts(registry) == (1, 1, 0)


async def test_client_of_the_other_kind_leaves_nothing_behind(
    registry: CircuitBreakerRegistry,
) -> None:
    """A transport fits the same clients as the wrapped one, and misuse loses no permit."""
    synchronous = CircuitBreakerTransport(httpx.HTTPTransport(), registry=registry)

    with pytest.raises(AttributeError, match="handle_async_request"):
        await httpx.AsyncClient(transport=synchronous).get(URL)

    assert counts(registry) == (0, 0, 0)
    synchronous.close()


def test_one_transport_serves_event_loops_one_after_another(
    transport: CircuitBreakerTransport, registry: CircuitBreakerRegistry
) -> None:
    """The transport is not bound to a loop."""

    async def send() -> None:
        await httpx.AsyncClient(transport=transport).get(URL)

    def run(make_call: Callable[[], Awaitable[None]]) -> None:
        asyncio.run(make_call())  # type: ignore[arg-type]

    run(send)
    run(send)

    assert counts(registry) == (0, 2, 0)
