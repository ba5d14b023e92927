"""The transport for httpx over HTTP/2, where one connection carries many exchanges."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived

from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
    CircuitOpenTransportError,
)
from example_service.infra.resilience.testing import FakeClock

pytestmark = pytest.mark.integration

STREAMS = 10


class Stream:
    """One request as the server sees it, and its response.

    Args:
        path: The path of the request.
        number: The ID of the stream in its connection.
        connection: The protocol of the connection.
        writer: Writes the bytes of the connection.
    """

    def __init__(
        self, path: str, number: int, connection: H2Connection, writer: asyncio.StreamWriter
    ) -> None:
        self.path = path
        self._number = number
        self._connection = connection
        self._writer = writer

    def begin(self) -> None:
        """Send the headers and the first half of the body."""
        self._connection.send_headers(self._number, [(":status", "200")])
        self._connection.send_data(self._number, b"first half, ")
        self._flush()

    def finish(self) -> None:
        """Send the second half of the body, which names the path."""
        self._connection.send_data(self._number, self.path.encode(), end_stream=True)
        self._flush()

    def reset(self) -> None:
        """Reset the stream without closing the connection."""
        self._connection.reset_stream(self._number, ErrorCodes.INTERNAL_ERROR)
        self._flush()

    def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())


class Server:
    """Speaks HTTP/2 without TLS, and lets the test send every response.

    Attributes:
        connections: The number of accepted connections.
        arrived: The requests in order of arrival.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.arrived: asyncio.Queue[Stream] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Queue the requests of one connection until the client closes it."""
        self.connections += 1
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    path = dict(event.headers)[b":path"].decode()
                    self.arrived.put_nowait(Stream(path, event.stream_id, connection, writer))
            writer.write(connection.data_to_send())
        writer.close()

    async def next_stream(self) -> Stream:
        """The next request, which must arrive within a minute."""
        return await asyncio.wait_for(self.arrived.get(), 60.0)


@pytest.fixture
def server() -> Server:
    """A server whose responses the test sends."""
    return Server()


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    """The server's origin, on a loopback port."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    listener.close()
    await listener.wait_closed()


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


@pytest.fixture
def transport(clock: FakeClock) -> CircuitBreakerTransport:
    """A guarded transport that speaks only HTTP/2 and admits one probe at a time."""
    return CircuitBreakerTransport(
        httpx.AsyncHTTPTransport(http1=False, http2=True),
        failure_threshold=3,
        success_threshold=1,
        half_open_max_calls=1,
        clock=clock,
        registry=CircuitBreakerRegistry(),
    )


@pytest.fixture
async def client(transport: CircuitBreakerTransport, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server."""
    async with httpx.AsyncClient(transport=transport, base_url=url, timeout=60.0) as client:
        yield client


@pytest.fixture
def breaker(transport: CircuitBreakerTransport, url: str) -> CircuitBreaker:
    """The breaker of the server's origin."""
    return transport.breaker_for(httpx.Request("GET", url))


async def get_whole(client: httpx.AsyncClient, server: Server) -> str:
    """Send a request that is answered in full, and return the text."""
    exchange = asyncio.create_task(client.get("/whole"))
    stream = await server.next_stream()
    stream.begin()
    stream.finish()
    return (await exchange).text


async def fail_one(client: httpx.AsyncClient, server: Server) -> None:
    """Send a request whose response begins well and is reset within its body."""
    sending = client.send(client.build_request("GET", "/reset"), stream=True)
    exchange = asyncio.create_task(sending)
    stream = await server.next_stream()
    stream.begin()
    response = await exchange
    assert response.status_code == 200
    stream.reset()
    with pytest.raises(httpx.RemoteProtocolError, match="StreamReset"):
        await response.aread()


async def test_each_stream_of_a_connection_is_a_call(
    client: httpx.AsyncClient, server: Server, breaker: CircuitBreaker
) -> None:
    """Concurrent requests over one connection are separate calls."""
    exchanges = [asyncio.create_task(client.get(f"/{number}")) for number in range(STREAMS)]
    streams = [await server.next_stream() for _ in exchanges]
    assert breaker.in_flight == STREAMS

    for stream in streams:
        stream.begin()
    for stream in reversed(streams):
        stream.finish()
    responses = await asyncio.gather(*exchanges)

    assert {response.http_version for response in responses} == {"HTTP/2"}
    assert [response.text for response in responses] == [
        f"first half, /{number}" for number in range(STREAMS)
    ]
    assert server.connections == 1
    assert (breaker.total_successes, breaker.total_failures) == (STREAMS, 0)
    assert breaker.in_flight == 0


async def test_streams_that_the_server_resets_open_the_circuit(
    client: httpx.AsyncClient, server: Server, breaker: CircuitBreaker
) -> None:
    """A body cut short by a reset is a failure, even if the connection stays intact."""
    for _ in range(3):
        assert breaker.is_closed
        await fail_one(client, server)

    with pytest.raises(httpx.TransportError) as refused:
        await client.get("/whole")
    assert isinstance(refused.value, CircuitOpenTransportError)
    assert refused.value.reason == "3 failures in a row; last failures: RemoteProtocolError"
    assert server.arrived.empty()
    assert (breaker.total_failures, breaker.total_rejections, breaker.in_flight) == (3, 1, 0)

    await breaker.reset()
    assert await get_whole(client, server) == "first half, /whole"
    assert server.connections == 1


async def test_reset_stream_leaves_its_neighbour_alone(
    client: httpx.AsyncClient, server: Server, breaker: CircuitBreaker
) -> None:
    """A stream succeeds even if another one of its connection is reset."""
    neighbour = asyncio.create_task(client.get("/neighbour"))
    stream = await server.next_stream()
    stream.begin()
    await fail_one(client, server)
    assert (breaker.total_failures, breaker.in_flight) == (1, 1)

    stream.finish()
    assert (await neighbour).text == "first half, /neighbour"
    assert (breaker.total_successes, breaker.total_failures, breaker.in_flight) == (1, 1, 0)
    assert server.connections == 1


@pytest.mark.parametrize("awaited", ["headers", "body", "something else"])
async def test_cancelled_stream_is_neutral_and_gives_its_permit_back(
    client: httpx.AsyncClient,
    server: Server,
    breaker: CircuitBreaker,
    clock: FakeClock,
    awaited: str,
) -> None:
    """After a cancelled probe, whatever it waited for, the next probe closes the circuit."""
    for _ in range(3):
        await fail_one(client, server)
    clock.advance(60.0)
    body_begins = asyncio.Event()

    async def probe() -> None:
        async with client.stream("GET", "/probe") as response:
            async for _ in response.aiter_bytes():
                body_begins.set()
                if awaited == "something else":
                    await asyncio.Event().wait()

    cancelled = asyncio.create_task(probe())
    stream = await server.next_stream()
    if awaited != "headers":
        stream.begin()
        await asyncio.wait_for(body_begins.wait(), 60.0)
    assert breaker.in_flight == 1
    with pytest.raises(CircuitOpenTransportError):
        await client.get("/second-probe")

    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (breaker.total_successes, breaker.total_failures, breaker.in_flight) == (0, 3, 0)
    assert breaker.is_half_open

    assert await get_whole(client, server) == "first half, /whole"
    assert breaker.is_closed
    assert server.connections == 1
