"""The transport for httpx over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from example_service.infra.resilience import CircuitBreakerRegistry, CircuitOpenError
from example_service.infra.resilience.httpx import CircuitBreakerTransport

pytestmark = pytest.mark.integration

# What a server sends before it closes the connection or keeps it.
ANSWERS = {
    b"/whole": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
    b"/short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    b"/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nchunk\r\n",
    b"/garbage": b"no protocol that httpx speaks\r\n\r\n",
}
# With one connection, the next request shows whether it was returned to the pool.
LIMITS = httpx.Limits(max_connections=1)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request by its path, and close the connection after a broken response."""
    path = b"/whole"
    while path == b"/whole" and (line := await reader.readline()):
        path = line.split()[1]
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWERS[path])
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server on a loopback port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """The registry of a test's breakers."""
    return CircuitBreakerRegistry()


@pytest.fixture(params=["sync", "async"])
async def get(
    request: pytest.FixtureRequest, registry: CircuitBreakerRegistry
) -> AsyncIterator[Callable[[str], Awaitable[httpx.Response]]]:
    """Send a request through the synchronous or the asynchronous client."""
    parameters: dict[str, Any] = {"failure_threshold": 3, "registry": registry}
    if request.param == "async":
        wrapped = httpx.AsyncHTTPTransport(limits=LIMITS)
        async with httpx.AsyncClient(
            transport=CircuitBreakerTransport(wrapped, **parameters), timeout=60.0
        ) as client:
            yield client.get
    else:
        wrapped_sync = httpx.HTTPTransport(limits=LIMITS)
        with httpx.Client(
            transport=CircuitBreakerTransport(wrapped_sync, **parameters), timeout=60.0
        ) as client_sync:
            yield lambda url: asyncio.to_thread(client_sync.get, url)


async def test_origin_that_truncates_responses_opens_its_circuit(
    get: Callable[[str], Awaitable[httpx.Response]], url: str, registry: CircuitBreakerRegistry
) -> None:
    """A response that breaks off is a failure and returns its connection to the pool."""
    assert (await get(f"{url}/whole")).text == "whole"
    for path in ("short", "chunk", "garbage"):
        with pytest.raises(httpx.RemoteProtocolError):
            await get(f"{url}/{path}")

    with pytest.raises(CircuitOpenError) as refused:
        await get(f"{url}/whole")
    assert refused.value.breaker_name == url
    assert refused.value.reason == "3 failures in a row; last failures: RemoteProtocolError"

    await registry.get(url).reset()
    assert (await get(f"{url}/whole")).text == "whole"


async def test_origin_that_refuses_connections_opens_its_circuit(
    get: Callable[[str], Awaitable[httpx.Response]], registry: CircuitBreakerRegistry
) -> None:
    """After three refused connections, requests are not even tried."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()

    for _ in range(3):
        with pytest.raises(httpx.ConnectError):
            await get(url)

    with pytest.raises(CircuitOpenError):
        await get(url)
    assert registry.get(url).total_failures == 3
