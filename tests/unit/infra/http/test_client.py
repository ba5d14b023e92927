"""The client for outgoing HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import respx

from example_service import __version__
from example_service.core import context
from example_service.infra.http.client import create_http_client

URL = "https://elsewhere.test/"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client with limits that no default has."""
    async with create_http_client(timeout_seconds=7.0, connect_timeout_seconds=3.0) as client:
        yield client


@asynccontextmanager
async def unending_answers(connections: int) -> AsyncIterator[str]:
    """The URL of a server whose answers end only with their connections, of so many clients."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        closed.release()

    closed = asyncio.Semaphore(0)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(connections):
            await closed.acquire()


async def sent_headers(client: httpx.AsyncClient) -> httpx.Headers:
    """Send a request and return its headers as they left."""
    with respx.mock:
        route = respx.get(URL)
        await client.get(URL)
    return route.calls.last.request.headers


def test_every_step_has_a_limit(client: httpx.AsyncClient) -> None:
    """No wait is without an end."""
    assert client.timeout == httpx.Timeout(connect=3.0, read=7.0, write=7.0, pool=3.0)


async def test_requests_say_who_sends_them(client: httpx.AsyncClient) -> None:
    """Whoever runs the other side can tell which service and version called."""
    headers = await sent_headers(client)
    assert headers["User-Agent"] == f"example-service/{__version__}"


async def test_the_ids_of_the_request_being_served_go_along(client: httpx.AsyncClient) -> None:
    """Concurrent requests each send their own."""

    async def serve(request_id: str) -> httpx.Headers:
        context.identity.set((request_id, TRACEPARENT, ()))
        response = await client.get(URL)
        return response.request.headers

    with respx.mock:
        respx.get(URL)
        sent = await asyncio.gather(serve("one"), serve("two"))
    assert [headers["X-Request-ID"] for headers in sent] == ["one", "two"]
    assert [headers["traceparent"] for headers in sent] == [TRACEPARENT] * 2


async def test_what_belongs_to_the_trace_goes_along(client: httpx.AsyncClient) -> None:
    """`tracestate` only with the trace that it is about; `baggage` where that is wanted."""
    context.tracestate.set("vendor=1")
    context.baggage.set("tenant=blue")
    without_trace = await sent_headers(client)
    context.identity.set(("one", TRACEPARENT, ()))
    headers = await sent_headers(client)

    assert "tracestate" not in without_trace
    assert headers["tracestate"] == "vendor=1"
    assert headers["baggage"] == "tenant=blue"


async def test_each_client_has_connections_of_its_own() -> None:
    """A service that is slow takes none from the others."""
    slow = create_http_client(max_connections=1)
    other = create_http_client(max_connections=1)
    async with (
        unending_answers(connections=2) as url,
        slow,
        other,
        slow.stream("GET", url) as answer,
    ):
        assert answer.status_code == 200
        with pytest.raises(httpx.PoolTimeout):
            await slow.get(url, timeout=httpx.Timeout(30.0, pool=0.001))
        async with other.stream("GET", url) as another:
            assert another.status_code == 200


async def test_outside_a_request_no_ids_are_sent(client: httpx.AsyncClient) -> None:
    """A background task does not pretend to serve somebody."""
    headers = await sent_headers(client)
    assert "X-Request-ID" not in headers
    assert "traceparent" not in headers


async def test_cookies_are_not_kept(client: httpx.AsyncClient) -> None:
    """The session of one call never reaches the next."""
    with respx.mock:
        route = respx.get(URL).respond(headers={"Set-Cookie": "session=alice"})
        await client.get(URL)
        await client.get(URL)
    assert "Cookie" not in route.calls.last.request.headers


async def test_redirects_are_not_followed(client: httpx.AsyncClient) -> None:
    """The redirect itself is the answer."""
    with respx.mock:
        respx.get(URL).respond(302, headers={"Location": "https://other.test/"})
        assert (await client.get(URL)).status_code == 302


async def test_a_proxy_is_used_for_others_and_never_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sandbox stays reachable where the environment sends everything through a proxy."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with create_http_client() as client:

        def proxied(url: str) -> bool:
            return client._transport_for_url(httpx.URL(url)) is not client._transport

        assert proxied(URL)
        for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000"):
            assert not proxied(f"http://{host}/")
