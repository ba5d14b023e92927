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
    """A client whose limits differ from all defaults."""
    async with create_http_client(timeout_seconds=7.0, connect_timeout_seconds=3.0) as client:
        yield client


@asynccontextmanager
async def unending_answers(connections: int) -> AsyncIterator[str]:
    """The URL of a server that never finishes its answers; wait until this many clients left."""

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
    """Send a request, and return its headers as they were sent."""
    with respx.mock:
        route = respx.get(URL)
        await client.get(URL)
    return route.calls.last.request.headers


def test_every_step_has_a_limit(client: httpx.AsyncClient) -> None:
    """No step of a request can wait forever."""
    assert client.timeout == httpx.Timeout(connect=3.0, read=7.0, write=7.0, pool=3.0)


async def test_requests_name_the_service_and_its_version(client: httpx.AsyncClient) -> None:
    """The operator of the other service can see which client called."""
    headers = await sent_headers(client)
    assert headers["User-Agent"] == f"example-service/{__version__}"


async def test_the_ids_of_the_request_being_served_are_sent(client: httpx.AsyncClient) -> None:
    """Each concurrent request sends its own ids."""

    async def serve(request_id: str) -> httpx.Headers:
        context.identity.set((request_id, TRACEPARENT, ()))
        response = await client.get(URL)
        return response.request.headers

    with respx.mock:
        respx.get(URL)
        sent = await asyncio.gather(serve("one"), serve("two"))
    assert [headers["X-Request-ID"] for headers in sent] == ["one", "two"]
    assert [headers["traceparent"] for headers in sent] == [TRACEPARENT] * 2


async def test_other_headers_of_the_trace_are_sent(client: httpx.AsyncClient) -> None:
    """`tracestate` is sent only with its own trace, and `baggage` only if configured."""
    context.tracestate.set("vendor=1")
    context.baggage.set("tenant=blue")
    without_trace = await sent_headers(client)
    context.identity.set(("one", TRACEPARENT, ()))
    headers = await sent_headers(client)

    assert "tracestate" not in without_trace
    assert headers["tracestate"] == "vendor=1"
    assert headers["baggage"] == "tenant=blue"


async def test_each_client_has_connections_of_its_own() -> None:
    """A slow service cannot use up the connections to the others."""
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
    """A background task does not belong to any request."""
    headers = await sent_headers(client)
    assert "X-Request-ID" not in headers
    assert "traceparent" not in headers


async def test_cookies_are_not_kept(client: httpx.AsyncClient) -> None:
    """A session cookie from one call is not sent with the next."""
    with respx.mock:
        route = respx.get(URL).respond(headers={"Set-Cookie": "session=alice"})
        await client.get(URL)
        await client.get(URL)
    assert "Cookie" not in route.calls.last.request.headers


async def test_redirects_are_not_followed(client: httpx.AsyncClient) -> None:
    """The caller receives the redirect itself."""
    with respx.mock:
        respx.get(URL).respond(302, headers={"Location": "https://other.test/"})
        assert (await client.get(URL)).status_code == 302


async def test_a_proxy_is_used_for_remote_hosts_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sandbox stays reachable even if the environment configures a proxy."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with create_http_client() as client:

        def proxied(url: str) -> bool:
            return client._transport_for_url(httpx.URL(url)) is not client._transport

        assert proxied(URL)
        for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000"):
            assert not proxied(f"http://{host}/")
