"""The connection pool of the HTTP client, when requests fail or are cancelled at any point."""

import asyncio
import random
from collections.abc import AsyncIterator

import httpcore
import httpx
import pytest

from example_service.infra.http.pool import ReclaimingTransport

MAX_CONNECTIONS = 4
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers requests; those for `/meeting` wait until every connection of the pool has one."""

    def __init__(self) -> None:
        self.url = ""
        self.meeting = asyncio.Barrier(MAX_CONNECTIONS)
        self.ended_connections = asyncio.Semaphore(0)
        self._connections: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests on one connection."""
        self._connections.append(writer)
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                if request.startswith(b"GET /meeting "):
                    await self.meeting.wait()
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended_connections.release()

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()
            await asyncio.gather(connection.wait_closed(), return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server on a loopback port."""
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    yield server
    listening.close()
    await server.close()


@pytest.fixture
def inner() -> httpx.AsyncHTTPTransport:
    """A transport with few connections."""
    return httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=MAX_CONNECTIONS))


@pytest.fixture
async def client(inner: httpx.AsyncHTTPTransport) -> AsyncIterator[httpx.AsyncClient]:
    """A client that uses the transport."""
    async with httpx.AsyncClient(transport=ReclaimingTransport(inner), timeout=60) as client:
        yield client


async def assert_every_place_is_free(client: httpx.AsyncClient, server: Server) -> None:
    """Check that the pool still allows its maximum number of simultaneous requests."""
    answers = await asyncio.gather(
        *(client.get(server.url + "meeting") for _ in range(MAX_CONNECTIONS))
    )
    assert [answer.text for answer in answers] == ["ok"] * MAX_CONNECTIONS


async def test_requests_cancelled_while_holding_a_connection_return_it(
    client: httpx.AsyncClient, server: Server
) -> None:
    """A connection that was assigned but never used does not keep its place in the pool."""
    competing = [asyncio.create_task(client.get(server.url)) for _ in range(2 * MAX_CONNECTIONS)]
    await asyncio.sleep(0)
    # A request that ends passes its place to a waiting one. That one was cancelled as well, but has
    # not run since.
    for task in competing:
        task.cancel()
    await asyncio.gather(*competing, return_exceptions=True)
    await assert_every_place_is_free(client, server)


@pytest.mark.parametrize("steps", range(12))
async def test_an_answer_may_be_cancelled_at_any_step(
    steps: int, client: httpx.AsyncClient, server: Server
) -> None:
    """This includes the steps that close it."""
    for _ in range(MAX_CONNECTIONS):
        async with client.stream("GET", server.url) as response:
            reading = asyncio.create_task(response.aread())
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    await assert_every_place_is_free(client, server)


async def test_a_storm_of_cancellations_costs_no_place(
    client: httpx.AsyncClient, server: Server
) -> None:
    """After many competing requests were cancelled or timed out, every place is free again."""
    chance = random.Random(1)  # noqa: S311 - every run must have the same delays

    async def request() -> None:
        async with asyncio.timeout(chance.uniform(0, 0.02)):
            await client.get(server.url)

    for _ in range(20):
        storm = [asyncio.create_task(request()) for _ in range(MAX_CONNECTIONS * 5)]
        await asyncio.sleep(chance.uniform(0, 0.01))
        for task in storm[::3]:
            task.cancel()
        await asyncio.gather(*storm, return_exceptions=True)
    await assert_every_place_is_free(client, server)


async def test_a_lost_place_is_found_when_requests_compete_for_an_idle_connection(
    client: httpx.AsyncClient, inner: httpx.AsyncHTTPTransport, server: Server
) -> None:
    """They all choose the same idle connection, and those that find it taken look for another."""
    await client.get(server.url)
    pool: httpcore.AsyncConnectionPool = inner._pool
    pool._connections.append(pool.create_connection(httpcore.URL(server.url).origin))
    await assert_every_place_is_free(client, server)


@pytest.mark.parametrize("steps", range(8))
async def test_a_connection_that_expires_before_a_request_uses_it_is_replaced(
    steps: int, client: httpx.AsyncClient, inner: httpx.AsyncHTTPTransport, server: Server
) -> None:
    """On a busy machine, a request may start long after it was assigned to an idle connection."""
    await client.get(server.url)
    (connection,) = inner._pool._connections
    first = asyncio.create_task(client.get(server.url))
    for _ in range(steps):
        await asyncio.sleep(0)
    if connection.is_idle():
        connection._connection._expire_at = 0  # type: ignore[attr-defined]
    answers = await asyncio.gather(first, client.get(server.url))

    assert [answer.text for answer in answers] == ["ok", "ok"]
    await assert_every_place_is_free(client, server)


@pytest.mark.parametrize("steps", range(8))
async def test_connections_are_closed_even_if_the_request_that_closes_them_is_cancelled(
    steps: int, client: httpx.AsyncClient, inner: httpx.AsyncHTTPTransport, server: Server
) -> None:
    """Whenever the request is cancelled, the server sees every expired connection close."""
    await assert_every_place_is_free(client, server)
    for connection in inner._pool._connections:
        connection._connection._expire_at = 0  # type: ignore[attr-defined]
    request = asyncio.create_task(client.get(server.url))
    for _ in range(steps):
        await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await client.get(server.url)
    async with asyncio.timeout(60):
        for _ in range(MAX_CONNECTIONS):
            await server.ended_connections.acquire()
