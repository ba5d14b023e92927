"""The transport for httpx: what it counts, when it knows, and what it keeps.

Tests with the fixture `way` hold for both kinds of client.
"""

import asyncio
import copy
import logging
import pickle
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, Protocol, Self, cast

import httpx
import pytest
import respx

from example_service.infra.resilience import (
    Backoff,
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
    StateChanged,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
    CircuitOpenTransportError,
    is_failed_response,
    is_upstream_failure,
    origin_of,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener

URL = "https://api.test/rates"
ORIGIN = "https://api.test"
OTHER_URL = "https://other.test/"
OTHER_ORIGIN = "https://other.test"


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives piece by piece, and may break off.

    Args:
        chunks: The pieces.
        error: What is raised after them.
        close_error: What closing raises.
    """

    def __init__(
        self,
        chunks: Iterable[bytes] = (b"one", b"two"),
        error: BaseException | None = None,
        close_error: BaseException | None = None,
    ) -> None:
        self.chunks = tuple(chunks)
        self.error = error
        self.close_error = close_error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        """Count, and raise what is asked for."""
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error

    async def aclose(self) -> None:
        """Count, and raise what is asked for."""
        self.close()


class Upstream:
    """Stands in for every origin: answers by host, and keeps what reached it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[httpx.Request] = []

    def answer(self, what: Any, url: str = URL) -> None:
        """From now on answer with a status, with a body, with a response, or raise an error."""
        self.answers[httpx.URL(url).host] = what

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        answer = self.answers.get(request.url.host, 200)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Body):
            return httpx.Response(200, stream=answer)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(answer, content=b"answer")


class Way(Protocol):
    """A kind of client, used alike for both kinds."""

    async def get(self, url: str = URL, method: str = "GET") -> httpx.Response:
        """Send a request and read the answer."""
        ...

    def stream(self, url: str = URL, method: str = "GET") -> Any:
        """Send a request; the answer is to be read within the block, and is closed after it."""
        ...

    async def read(self, response: httpx.Response) -> bytes:
        """Read the answer to its end."""
        ...

    async def read_first(self, response: httpx.Response) -> bytes:
        """Read the first piece of the answer and let the iterator go."""
        ...


class SyncWay:
    """Through `httpx.Client`."""

    def __init__(self, transport: CircuitBreakerTransport) -> None:
        self.client = httpx.Client(transport=transport)

    async def get(self, url: str = URL, method: str = "GET") -> httpx.Response:
        """Send a request and read the answer."""
        return self.client.request(method, url)

    @asynccontextmanager
    async def stream(self, url: str = URL, method: str = "GET") -> AsyncIterator[httpx.Response]:
        """Send a request; the answer is to be read within the block."""
        with self.client.stream(method, url) as response:
            yield response

    async def read(self, response: httpx.Response) -> bytes:
        """Read the answer to its end."""
        return response.read()

    async def read_first(self, response: httpx.Response) -> bytes:
        """Read the first piece of the answer and let the iterator go."""
        return next(response.iter_raw())


class AsyncWay:
    """Through `httpx.AsyncClient`."""

    def __init__(self, transport: CircuitBreakerTransport) -> None:
        self.client = httpx.AsyncClient(transport=transport)

    async def get(self, url: str = URL, method: str = "GET") -> httpx.Response:
        """Send a request and read the answer."""
        return await self.client.request(method, url)

    @asynccontextmanager
    async def stream(self, url: str = URL, method: str = "GET") -> AsyncIterator[httpx.Response]:
        """Send a request; the answer is to be read within the block."""
        async with self.client.stream(method, url) as response:
            yield response

    async def read(self, response: httpx.Response) -> bytes:
        """Read the answer to its end."""
        return await response.aread()

    async def read_first(self, response: httpx.Response) -> bytes:
        """Read the first piece of the answer and let the iterator go."""
        pieces = response.aiter_raw()
        first = await anext(pieces)
        assert hasattr(pieces, "aclose")
        await pieces.aclose()
        return first


@pytest.fixture
def upstream() -> Upstream:
    """What answers."""
    return Upstream()


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """Where the breakers of a test show up."""
    return CircuitBreakerRegistry()


@pytest.fixture
def clock() -> FakeClock:
    """What the breakers read the time from."""
    return FakeClock()


@pytest.fixture
def listener() -> RecordingListener:
    """What the breakers tell."""
    return RecordingListener()


@pytest.fixture
def make(
    upstream: Upstream, registry: CircuitBreakerRegistry, clock: FakeClock
) -> Callable[..., CircuitBreakerTransport]:
    """Makes a transport in front of `upstream` whose breakers open with the second failure."""

    def make(transport: Any = None, **parameters: Any) -> CircuitBreakerTransport:
        wrapped = transport or httpx.MockTransport(upstream)
        chosen = {
            "failure_threshold": 2,
            "success_threshold": 1,
            "registry": registry,
            "clock": clock,
        }
        return CircuitBreakerTransport(wrapped, **{**chosen, **parameters})

    return make


@pytest.fixture
def transport(make: Callable[..., CircuitBreakerTransport]) -> CircuitBreakerTransport:
    """A transport with its default rules."""
    return make()


WAYS: dict[str, Callable[[CircuitBreakerTransport], Way]] = {"sync": SyncWay, "async": AsyncWay}


@pytest.fixture(params=WAYS)
def way_of(request: pytest.FixtureRequest) -> Callable[[CircuitBreakerTransport], Way]:
    """Makes a client of one kind."""
    return WAYS[request.param]


@pytest.fixture
def way(
    way_of: Callable[[CircuitBreakerTransport], Way], transport: CircuitBreakerTransport
) -> Way:
    """A client of one kind."""
    return way_of(transport)


async def opened(way: Way, upstream: Upstream, url: str = URL) -> None:
    """Open the circuit of an origin with two answers of 503; it goes on answering so."""
    upstream.answer(503, url)
    for _ in range(2):
        await way.get(url)


def counts(registry: CircuitBreakerRegistry, name: str = ORIGIN) -> tuple[int, int, int]:
    """Failures, successes and calls in flight of a breaker."""
    breaker = registry.get(name)
    return breaker.total_failures, breaker.total_successes, breaker.in_flight


# --- names


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.example.com/v1?key=secret#part", "https://api.example.com"),
        ("http://api.example.com:8080", "http://api.example.com:8080"),
        ("HTTPS://API.Example.COM/", "https://api.example.com"),
        ("https://api.example.com:443/", "https://api.example.com"),
        ("http://api.example.com:80/", "http://api.example.com"),
        ("https://api.example.com:80/", "https://api.example.com:80"),
        ("https://name:password@api.example.com/", "https://api.example.com"),
        ("https://bücher.example/", "https://xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://" + "a" * 1000 + "/", "http://" + "a" * 293),
    ],
)
def test_origin_is_one_name_for_one_place(url: str, origin: str) -> None:
    """Scheme, host and port remain, in one spelling and with an end; nothing else does."""
    assert origin_of(httpx.Request("GET", url)) == origin


async def test_each_origin_has_a_breaker_of_its_own(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """One origin is refused while the others are still called."""
    await opened(way, upstream)

    with pytest.raises(CircuitOpenError):
        await way.get()

    assert (await way.get(OTHER_URL)).status_code == 200
    assert (await way.get("http://api.test/")).status_code == 503
    assert {breaker.name for breaker in registry} == {ORIGIN, OTHER_ORIGIN, "http://api.test"}


async def test_requests_of_equal_keys_share_a_breaker(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """The given function decides which breaker a request belongs to, and what it is called."""
    way = way_of(make(key=lambda request: f"everything that {request.method} asks for"))
    await opened(way, upstream)

    with pytest.raises(CircuitOpenError):
        await way.get(OTHER_URL)

    assert [breaker.name for breaker in registry] == ["everything that GET asks for"]


def test_breaker_can_be_had_before_the_first_request(
    transport: CircuitBreakerTransport, upstream: Upstream
) -> None:
    """What is set by hand on the breaker of a request holds for that request."""
    breaker = transport.breaker_for(httpx.Request("GET", URL))
    breaker.force_open("maintenance")

    with pytest.raises(CircuitOpenTransportError) as caught:
        httpx.Client(transport=transport).get(URL)

    assert caught.value.retry_after is None
    assert upstream.requests == []
    assert transport.breaker_for(httpx.Request("POST", ORIGIN)) is breaker


# --- what counts


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        (200, False),
        (302, False),
        (404, False),
        (408, False),
        (428, False),
        (429, True),
        (430, False),
        (499, False),
        (500, True),
        (503, True),
        (599, True),
    ],
)
async def test_status_tells_whether_the_origin_fails(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, status: int, failed: bool
) -> None:
    """429 and 5xx are failures, and reach the caller all the same; other answers are successes."""
    upstream.answer(status)

    assert (await way.get()).status_code == status
    assert counts(registry) == (int(failed), int(not failed), 0)
    assert is_failed_response(httpx.Response(status)) is failed


# Every error of a transport that httpx knows: whether it is the other side's.
TRANSPORT_ERRORS = {
    "CloseError": True,
    "ConnectError": True,
    "ConnectTimeout": True,
    "LocalProtocolError": False,
    "NetworkError": True,
    "PoolTimeout": False,
    "ProtocolError": True,
    "ProxyError": True,
    "ReadError": True,
    "ReadTimeout": True,
    "RemoteProtocolError": True,
    "TimeoutException": True,
    "TransportError": True,
    "UnsupportedProtocol": False,
    "WriteError": True,
    "WriteTimeout": True,
}


def test_every_error_of_httpx_is_classified() -> None:
    """An error that a release of httpx adds is to be put into the table by somebody."""
    exported = {name: getattr(httpx, name) for name in httpx.__all__}
    errors = {
        name
        for name, one in exported.items()
        if isinstance(one, type) and issubclass(one, httpx.TransportError)
    }

    assert errors == set(TRANSPORT_ERRORS)


@pytest.mark.parametrize(("name", "failed"), TRANSPORT_ERRORS.items())
async def test_error_of_the_transport_counts_unless_it_is_our_own(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, name: str, failed: bool
) -> None:
    """What the network or the other side did is a failure; what we did counts for nothing."""
    error = getattr(httpx, name)("broken")
    upstream.answer(error)

    with pytest.raises(httpx.TransportError) as caught:
        await way.get()

    assert caught.value is error
    assert counts(registry) == (int(failed), 0, 0)
    assert is_upstream_failure(error) is failed


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), httpx.DecodingError("not gzip"), httpx.StreamConsumed()]
)
async def test_other_errors_count_for_nothing(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, error: Exception
) -> None:
    """An error that is not the transport's passes through and says nothing about the origin."""
    upstream.answer(error)

    with pytest.raises(type(error)):
        await way.get()

    assert counts(registry) == (0, 0, 0)
    assert not is_upstream_failure(error)


def test_interruption_counts_for_nothing(
    transport: CircuitBreakerTransport, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Ctrl+C says nothing about the origin, and gives the permit back."""
    upstream.answer(KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        httpx.Client(transport=transport).get(URL)

    assert counts(registry) == (0, 0, 0)


async def test_refusal_of_a_wrapped_breaker_counts_for_nothing(
    way_of: Callable[[CircuitBreakerTransport], Way],
    transport: CircuitBreakerTransport,
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """Of two transports around each other the outer one does not take refusals for an outage."""
    outer = CircuitBreakerTransport(transport, key=lambda _: "all", registry=registry)
    way = way_of(outer)
    await opened(way, upstream)

    for _ in range(9):
        with pytest.raises(CircuitOpenError) as caught:
            await way.get()
        assert caught.value.breaker_name == ORIGIN

    assert counts(registry, "all") == (2, 0, 0)


async def test_parameters_are_those_of_every_breaker(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """Given rules take the place of the usual ones, for each origin."""
    transport = make(
        expected_exception=Exception,
        is_failure=None,
        is_failed_result=lambda response: (
            response.request.url.path == "/rates" and response.status_code == 404
        ),
        failure_threshold=7,
    )
    way = way_of(transport)
    for answer in (404, 503):
        upstream.answer(answer)
        await way.get()
    upstream.answer(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await way.get()
    await way.get(OTHER_URL)

    assert counts(registry) == (2, 1, 0)
    assert {breaker.failure_threshold for breaker in registry} == {7}


async def test_status_may_count_for_nothing(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """Without a rule for responses each one is a success."""
    upstream.answer(503)

    way = way_of(make(is_failed_result=None))
    await way.get()

    assert counts(registry) == (0, 1, 0)


async def test_every_breaker_has_the_listeners(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    listener: RecordingListener,
) -> None:
    """Listeners that were given as an iterator hear from the second origin as well."""
    way = way_of(make(listeners=iter([listener])))

    await way.get()
    await way.get(OTHER_URL)

    assert [event.breaker_name for event in listener.events] == [ORIGIN, OTHER_ORIGIN]


async def test_error_in_a_rule_leaves_nothing_behind(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """Where judging a response raises, its body is closed and its permit given back."""
    body = Body()
    upstream.answer(body)

    way = way_of(make(is_failed_result=lambda response: response.headers["X"]))
    with pytest.raises(KeyError):
        await way.get()

    assert body.closed == 1
    assert counts(registry) == (0, 0, 0)


# --- when it is known


async def test_success_is_known_at_the_end_of_the_body(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """A body that is being read holds the permit; closing it afterwards counts no second time."""
    body = Body()
    upstream.answer(body)

    async with way.stream() as response:
        assert counts(registry) == (0, 0, 1)
        assert await way.read(response) == b"onetwo"
        assert counts(registry) == (0, 1, 0)

    assert counts(registry) == (0, 1, 0)
    assert body.closed == 1


@pytest.mark.parametrize("chunks", [[], [b"", b""]])
async def test_empty_body_is_a_success(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, chunks: list[bytes]
) -> None:
    """A body of which nothing comes ends like any other."""
    upstream.answer(Body(chunks))

    assert (await way.get()).content == b""
    assert counts(registry) == (0, 1, 0)


async def test_body_that_breaks_off_is_a_failure(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Headers that look well do not hide that the origin fails in the middle of its answers."""
    for _ in range(2):
        upstream.answer(Body(error=httpx.RemoteProtocolError("peer closed connection")))
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await way.get()
        assert caught.value.request.url == URL

    assert counts(registry) == (2, 0, 0)
    with pytest.raises(CircuitOpenError):
        await way.get()


async def test_body_with_an_error_of_its_own_counts_for_nothing(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """In the middle of a body errors are told apart as they are before it."""
    upstream.answer(Body(error=httpx.LocalProtocolError("ours")))

    with pytest.raises(httpx.LocalProtocolError):
        await way.get()

    assert counts(registry) == (0, 0, 0)


async def test_body_closed_early_is_a_success(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """The origin answered with good headers; its reader has seen enough."""
    body = Body()
    upstream.answer(body)

    async with way.stream() as response:
        assert await way.read_first(response) == b"one"
        assert counts(registry) == (0, 0, 1)

    assert counts(registry) == (0, 1, 0)
    assert body.closed == 1


class Emptied(httpx.AsyncByteStream):
    """A body that gives one chunk to each reader and then goes on in its own way.

    Args:
        go_on: What follows the chunk.
    """

    def __init__(self, go_on: Callable[[], Awaitable[None]]) -> None:
        self.go_on = go_on

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: [DONE]"
        await self.go_on()


async def never() -> None:
    """Wait for an end that does not come."""
    await asyncio.Event().wait()


async def break_off() -> None:
    """Lose the connection."""
    raise httpx.ReadError("broken")


@pytest.mark.parametrize("go_on", [never, break_off])
async def test_emptying_the_rest_of_a_body_is_not_the_call(
    registry: CircuitBreakerRegistry, go_on: Callable[[], Awaitable[None]]
) -> None:
    """A reader that has its end marker gives the rest a moment, so that the connection is kept."""

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Emptied(go_on))

    transport = CircuitBreakerTransport(httpx.MockTransport(answer), registry=registry)
    async with httpx.AsyncClient(transport=transport) as client:
        async with client.stream("GET", URL) as response:
            async for _ in response.aiter_raw():
                with suppress(TimeoutError, httpx.ReadError):
                    async with asyncio.timeout(0.01):
                        async for _ in cast("httpx.AsyncByteStream", response.stream):
                            pass
                break
        assert counts(registry) == (0, 1, 0)


async def test_caller_that_is_cancelled_while_it_empties_a_body_counts_for_nothing(
    registry: CircuitBreakerRegistry,
) -> None:
    """The whole call was given up, wherever it was."""
    emptying = asyncio.Event()

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Emptied(never))

    async def read(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", URL) as response:
            async for _ in response.aiter_raw():
                async for _ in cast("httpx.AsyncByteStream", response.stream):
                    emptying.set()

    transport = CircuitBreakerTransport(httpx.MockTransport(answer), registry=registry)
    async with httpx.AsyncClient(transport=transport) as client:
        reading = asyncio.create_task(read(client))
        await emptying.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    assert counts(registry) == (0, 0, 0)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_interrupted_reader_that_closes_a_body_counts_for_nothing(
    transport: CircuitBreakerTransport,
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    interruption: type[BaseException],
) -> None:
    """Whatever is no `Exception` stopped the reader; it had not read enough."""
    upstream.answer(Body())
    client = httpx.Client(transport=transport)
    with pytest.raises(interruption), client.stream("GET", URL):
        raise interruption

    assert counts(registry) == (0, 0, 0)


async def test_body_that_goes_on_after_closing_counts_once(
    transport: CircuitBreakerTransport, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Where one thread closes what another one reads, the first of them decides."""
    upstream.answer(Body())
    with httpx.Client(transport=transport).stream("GET", URL) as response:
        for _ in response.iter_raw():
            response.close()
    async with httpx.AsyncClient(transport=transport).stream("GET", URL) as response:
        async for _ in response.aiter_raw():
            await response.aclose()

    assert counts(registry) == (0, 2, 0)


@pytest.mark.parametrize(("reads", "expected"), [(False, (1, 0, 0)), (True, (0, 1, 0))])
async def test_error_while_closing_counts_unless_the_outcome_is_known(
    way: Way,
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    reads: bool,
    expected: tuple[int, int, int],
) -> None:
    """A connection that breaks while it is closed is a failure, but not after a whole answer."""
    upstream.answer(Body(close_error=httpx.CloseError("broken")))

    with pytest.raises(httpx.CloseError):  # noqa: PT012 - Leaving the block raises.
        async with way.stream() as response:
            if reads:
                await way.read(response)

    assert counts(registry) == expected


@pytest.mark.parametrize("error", [None, httpx.ReadError("broken")])
async def test_failed_status_is_counted_with_the_headers_and_once(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, error: Exception | None
) -> None:
    """Whether its body is read, breaks off or is closed early changes nothing any more."""
    body = Body(error=error)
    upstream.answer(httpx.Response(503, stream=body))

    async with way.stream() as response:
        assert counts(registry) == (1, 0, 0)
        with pytest.raises(type(error)) if error else nullcontext():
            await way.read(response)

    assert counts(registry) == (1, 0, 0)
    assert body.closed == 1


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [("HEAD", 200, 3), ("GET", 101, 3), ("GET", 204, 3), ("GET", 304, 3), ("GET", 200, 0)],
)
async def test_response_without_a_body_ends_with_its_headers(  # noqa: PLR0917
    way: Way,
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    method: str,
    status: int,
    length: int,
) -> None:
    """Where there is nothing to read, not reading it is no early end."""
    body = Body([])
    headers = {"Content-Length": str(length)}
    upstream.answer(httpx.Response(status, headers=headers, stream=body))

    async with way.stream(method=method):
        assert counts(registry) == (0, 1, 0)

    assert counts(registry) == (0, 1, 0)
    assert body.closed == 1


async def test_response_that_is_not_told_to_end_ends_with_its_headers(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """A response made from bytes is closed from the start, and nobody closes it again."""
    upstream.answer(httpx.Response(200, content=b"answer"))

    async with way.stream():
        assert counts(registry) == (0, 1, 0)


async def test_probe_holds_its_place_until_its_body_ends(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, clock: FakeClock
) -> None:
    """While half-open no more bodies are read at once than probes are allowed."""
    await opened(way, upstream)
    clock.advance(60.0)
    upstream.answer(Body())

    async with way.stream(), way.stream(), way.stream() as third:
        with pytest.raises(CircuitOpenError) as caught:
            await way.get()
        assert caught.value.state is CircuitState.HALF_OPEN
        assert caught.value.retry_after == 0.0
        await way.read(third)

    assert registry.get(ORIGIN).is_closed


async def test_probe_whose_body_hangs_is_a_failure(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, clock: FakeClock
) -> None:
    """A body that takes longer than a probe may take opens the circuit again, and counts once."""
    await opened(way, upstream)
    clock.advance(60.0)
    upstream.answer(Body())

    async with way.stream() as response:
        clock.advance(60.0)
        assert registry.get(ORIGIN).is_open
        await way.read(response)

    assert registry.get(ORIGIN).is_open
    assert counts(registry) == (3, 0, 0)


async def test_slow_body_is_a_slow_call(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    clock: FakeClock,
) -> None:
    """Bodies that trickle open the circuit while they are still being read."""
    way = way_of(make(slow_call_duration=2.0))
    upstream.answer(Body())

    async with way.stream() as first, way.stream():
        clock.advance(2.0)
        with pytest.raises(CircuitOpenError):
            await way.get()
        await way.read(first)

    assert counts(registry) == (2, 0, 0)


async def test_listeners_hear_the_whole_story(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    clock: FakeClock,
    listener: RecordingListener,
) -> None:
    """From failure through refusal to recovery, each exchange is told once."""
    way = way_of(make(listeners=[listener]))
    await opened(way, upstream)
    with pytest.raises(CircuitOpenError):
        await way.get()
    clock.advance(60.0)
    upstream.answer(Body())
    async with way.stream() as response:
        clock.advance(2.0)
        await way.read(response)

    failed = CallFailed(ORIGIN, None, 0.0)
    story = [one for one in listener.events if not isinstance(one, StateChanged)]
    states = [one.to_state for one in listener.events if isinstance(one, StateChanged)]
    assert story == [
        failed,
        failed,
        CallRejected(ORIGIN, CircuitState.OPEN, 60.0),
        CallSucceeded(ORIGIN, 2.0),
    ]
    assert states == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]


class Hanging(httpx.AsyncByteStream, httpx.AsyncBaseTransport):
    """Never answers, or never goes on with its answer; tells when it has come to that.

    Args:
        sends_headers: Whether it hangs in the body only.
    """

    def __init__(self, sends_headers: bool) -> None:
        self.sends_headers = sends_headers
        self.is_reached = asyncio.Event()

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        """Answer, or do not."""
        if not self.sends_headers:
            await self._hang()
        return httpx.Response(200, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one"
        await self._hang()

    async def _hang(self) -> None:
        self.is_reached.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("sends_headers", [False, True])
async def test_cancellation_counts_for_nothing(
    registry: CircuitBreakerRegistry, sends_headers: bool
) -> None:
    """A caller that gives up gives the permit back, before the headers as in the body."""
    hanging = Hanging(sends_headers)
    transport = CircuitBreakerTransport(hanging, registry=registry)
    async with httpx.AsyncClient(transport=transport) as client:
        call = asyncio.create_task(client.get(URL))
        await hanging.is_reached.wait()
        assert counts(registry) == (0, 0, 1)

        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    assert counts(registry) == (0, 0, 0)


# --- what it raises


async def refusal(way: Way, upstream: Upstream) -> CircuitOpenTransportError:
    """What the caller of an open circuit gets."""
    await opened(way, upstream)
    with pytest.raises(CircuitOpenTransportError) as caught:
        await way.get()
    return caught.value


async def test_refusal_is_of_both_kinds(way: Way, upstream: Upstream) -> None:
    """Neither `except httpx.TransportError` nor `except CircuitOpenError` misses it."""
    refused = await refusal(way, upstream)

    assert isinstance(refused, httpx.TransportError)
    assert isinstance(refused, CircuitOpenError)
    assert len(upstream.requests) == 2


async def test_refusal_tells_all_that_either_kind_tells(way: Way, upstream: Upstream) -> None:
    """Breaker, state, wait and reason are there, and the request that was refused."""
    refused = await refusal(way, upstream)

    assert refused.breaker_name == ORIGIN
    assert refused.state is CircuitState.OPEN
    assert refused.retry_after == 60.0
    assert refused.reason == "2 failures in a row; last failures: failed result"
    assert refused.request.url == URL
    assert str(refused) == f"Circuit breaker '{ORIGIN}' is open, retry after 60.0 seconds"
    assert repr(refused) == f"CircuitOpenTransportError({str(refused)!r})"


async def test_refusal_has_its_request_without_a_client_too(
    transport: CircuitBreakerTransport,
) -> None:
    """Code that calls the transport itself is told which request was refused."""
    request = httpx.Request("GET", URL)
    transport.breaker_for(request).force_open("maintenance")

    with pytest.raises(CircuitOpenTransportError) as caught:
        transport.handle_request(request)
    with pytest.raises(CircuitOpenTransportError) as caught_async:
        await transport.handle_async_request(request)

    assert caught.value.request is caught_async.value.request is request


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],  # noqa: S301
)
async def test_refusal_can_be_handed_on(
    way: Way, upstream: Upstream, duplicate: Callable[[Any], CircuitOpenTransportError]
) -> None:
    """A pickled or copied refusal tells the same."""
    refused = await refusal(way, upstream)

    received = duplicate(refused)

    assert type(received) is CircuitOpenTransportError
    assert received.args == refused.args
    assert str(received) == str(refused)
    assert received.request.url == URL
    assert received.retry_after == refused.retry_after


def test_refusal_may_be_a_message_alone() -> None:
    """Stand-ins for an origin can raise it without a breaker, as they can its parents."""
    refused = CircuitOpenTransportError("closed for today")

    assert str(refused) == "closed for today"
    assert refused.breaker_name is None
    assert refused.retry_after is None
    with pytest.raises(RuntimeError, match="request"):
        _ = refused.request


async def test_refused_request_keeps_its_body(
    way_of: Callable[[CircuitBreakerTransport], Way],
    transport: CircuitBreakerTransport,
    upstream: Upstream,
) -> None:
    """Nothing is read from the body of a request that is not sent, so that it can be sent later."""
    await opened(way_of(transport), upstream)
    pieces = iter([b"one"])

    with pytest.raises(CircuitOpenError):
        httpx.Client(transport=transport).post(URL, content=pieces)

    assert list(pieces) == [b"one"]


# --- Retry-After


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0120"}, 120.0),
        ({"Retry-After": "301"}, 300.0),
        ({"Retry-After": "9" * 5000}, 300.0),
        (
            {
                "Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT",
                "Date": "Sun, 06 Nov 1994 08:48:37 GMT",
            },
            60.0,
        ),
        (
            {
                "Retry-After": "Sunday, 06-Nov-94 08:49:37 GMT",
                "Date": "Sun Nov  6 08:49:30 1994",
            },
            7.0,
        ),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT", "Date": "yesterday"}, 300.0),
    ],
)
async def test_open_wait_is_the_one_that_was_announced(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    headers: dict[str, str],
    wait: float,
) -> None:
    """One failed response with seconds or a date opens the circuit at once, up to the limit."""
    way = way_of(make(max_retry_after_seconds=300.0))
    upstream.answer(httpx.Response(429, headers=headers))
    await way.get()

    with pytest.raises(CircuitOpenError) as caught:
        await way.get()

    assert caught.value.retry_after == wait


@pytest.mark.parametrize(("seconds", "wait"), [(1e9, 86_400.0), (7.0, 7.0)])
async def test_open_for_says_the_wait_within_its_bound(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    seconds: float,
    wait: float,
) -> None:
    """It is called with the failed response, in place of the header."""
    way = way_of(make(open_for=lambda _: seconds))
    upstream.answer(429)
    await way.get()

    with pytest.raises(CircuitOpenError) as caught:
        await way.get()

    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "-1",
        "1.5",
        "²",
        "soon",
        "5, 5",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "99999999999999999999 Oct 07:28:00 2015 ,",
    ],
)
async def test_announcement_that_makes_no_sense_is_left_alone(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    value: str,
) -> None:
    """What lies in the past or cannot be understood leaves the usual wait."""
    way = way_of(make(max_retry_after_seconds=300.0))
    upstream.answer(httpx.Response(429, headers=[(b"Retry-After", value.encode())]))
    for _ in range(2):
        await way.get()

    with pytest.raises(CircuitOpenError) as caught:
        await way.get()

    assert caught.value.retry_after == 60.0


async def test_announcement_is_left_alone_unless_asked_for(way: Way, upstream: Upstream) -> None:
    """By default the origin does not decide how long the circuit stays open."""
    upstream.answer(httpx.Response(503, headers={"Retry-After": "7"}))
    for _ in range(2):
        await way.get()

    with pytest.raises(CircuitOpenError) as caught:
        await way.get()

    assert caught.value.retry_after == 60.0


async def test_announcement_holds_for_one_opening(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    clock: FakeClock,
    listener: RecordingListener,
) -> None:
    """Openings by anything else wait as they always do, with the given backoff."""
    backoff = Backoff(multiplier=3.0, max_timeout=1000.0)
    transport = make(max_retry_after_seconds=300.0, backoff=backoff, listeners=[listener])
    way = way_of(transport)
    announcing = httpx.Response(503, headers={"Retry-After": "7"})
    for answer in (announcing, httpx.ConnectError("broken"), 503, announcing):
        upstream.answer(answer)
        while transport.breaker_for(httpx.Request("GET", URL)).state is not CircuitState.OPEN:
            with suppress(httpx.ConnectError):
                await way.get()
        clock.advance(1000.0)

    opened = [one for one in listener.events if isinstance(one, StateChanged) and one.wait_seconds]
    assert [one.wait_seconds for one in opened] == [7.0, 180.0, 540.0, 7.0]
    shown = transport.breaker_for(httpx.Request("GET", URL)).backoff
    assert (shown.multiplier, shown.max_timeout) == (3.0, 1000.0)


class Bystander:
    """A listener that opens another circuit, and has a task do so, too."""

    def __init__(self, failing: Callable[[], Awaitable[object]], other: CircuitBreaker) -> None:
        self.failing = failing
        self.other = other
        self.later: asyncio.Task[object] | None = None

    def on_state_change(self, _: StateChanged, /) -> None:
        """Open them."""
        with suppress(ZeroDivisionError):
            self.other.call_sync(divmod, 1, 0)
        if self.later is None:
            self.later = asyncio.create_task(asyncio.wait_for(self.failing(), 10.0))


async def test_announcement_is_of_one_circuit(
    make: Callable[..., CircuitBreakerTransport], clock: FakeClock
) -> None:
    """Neither a listener, nor its task, nor another transport inherits the wait."""
    quiet = make(failure_threshold=1, transport=httpx.MockTransport(lambda _: httpx.Response(503)))
    other = CircuitBreaker("other", failure_threshold=1, clock=clock, registry=None)
    async with httpx.AsyncClient(transport=quiet) as failing:
        listener = Bystander(lambda: failing.get(OTHER_URL), other)
        announcing = make(
            max_retry_after_seconds=300.0,
            listeners=[listener],
            transport=httpx.MockTransport(
                lambda _: httpx.Response(503, headers={"Retry-After": "7"})
            ),
        )
        async with httpx.AsyncClient(transport=announcing) as client:
            await client.get(URL)
        assert listener.later is not None
        await listener.later

    waits = {
        breaker.name: breaker.get_metrics()["retry_after"]
        for breaker in (
            announcing.breaker_for(httpx.Request("GET", URL)),
            quiet.breaker_for(httpx.Request("GET", OTHER_URL)),
            other,
        )
    }
    assert waits == {ORIGIN: 7.0, OTHER_ORIGIN: 60.0, "other": 60.0}


# --- how many it keeps


def url_of(number: int) -> str:
    """One of many origins."""
    return f"https://{number}.test"


async def test_breaker_not_used_for_longest_makes_room(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    registry: CircuitBreakerRegistry,
) -> None:
    """It is gone from the registry too, and its metric series with it."""
    way = way_of(make(max_breakers=2))

    for number in (1, 2, 1, 3):
        await way.get(url_of(number))

    assert {one.name for one in registry.snapshots()} == {url_of(1), url_of(3)}


def test_thousands_of_origins_leave_as_many_breakers_as_are_kept(
    make: Callable[..., CircuitBreakerTransport], registry: CircuitBreakerRegistry
) -> None:
    """However many origins are called, the number of breakers has an end."""
    transport = make(max_breakers=20)

    for number in range(3000):
        transport.breaker_for(httpx.Request("GET", url_of(number)))

    assert {one.name for one in registry} == {url_of(number) for number in range(2980, 3000)}


async def test_breakers_with_something_to_remember_stay(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """One that is open, in use or set by hand is passed over, however long ago it was used."""
    transport = make(max_breakers=4)
    way = way_of(transport)
    await opened(way, upstream, url_of(1))
    transport.breaker_for(httpx.Request("GET", url_of(2))).disable("known to be flaky")
    upstream.answer(Body(), url_of(3))

    async with way.stream(url_of(3)):
        for number in range(10, 20):
            await way.get(url_of(number))
        names = {breaker.name for breaker in registry}

    assert names == {url_of(1), url_of(2), url_of(3), url_of(19)}
    with pytest.raises(CircuitOpenError):
        await way.get(url_of(1))


async def test_breakers_that_wait_for_a_probe_make_room_last(  # noqa: PLR0917
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    clock: FakeClock,
    listener: RecordingListener,
) -> None:
    """Origins that are dead for good do not take every place for ever."""
    way = way_of(make(max_breakers=3, listeners=[listener]))
    await opened(way, upstream, url_of(1))
    await opened(way, upstream, url_of(2))
    await way.get(url_of(3))
    assert registry.get(url_of(1)).is_open
    clock.advance(60.0)
    assert registry.get(url_of(2)).is_half_open
    listener.events.clear()

    await opened(way, upstream, url_of(4))
    after_one = {breaker.name for breaker in registry}
    listener.events.clear()
    await opened(way, upstream, url_of(5))
    await opened(way, upstream, url_of(6))

    assert after_one == {url_of(1), url_of(2), url_of(4)}
    assert {breaker.name for breaker in registry} == {url_of(4), url_of(5), url_of(6)}
    assert {one.breaker_name for one in listener.events} == {url_of(5), url_of(6)}


async def test_without_room_a_further_origin_is_called_unguarded(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where all breakers are needed, others are done without, which is logged once."""
    way = way_of(make(max_breakers=1))
    await opened(way, upstream)
    caplog.clear()
    upstream.answer(503, OTHER_URL)

    for _ in range(9):
        assert (await way.get(OTHER_URL)).status_code == 503
    upstream.answer(Body(), OTHER_URL)
    async with way.stream(OTHER_URL):
        assert OTHER_ORIGIN not in registry

    assert [breaker.name for breaker in registry] == [ORIGIN]
    [warning] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert warning.getMessage() == (
        f"All 1 circuit breakers of a set are open or in use, so '{OTHER_ORIGIN}' is not guarded; "
        "it is logged only once"
    )


def test_breakers_go_with_their_transport(
    make: Callable[..., CircuitBreakerTransport], registry: CircuitBreakerRegistry
) -> None:
    """A transport that nobody uses any more leaves nothing in the registry."""
    httpx.Client(transport=make()).get(URL)

    assert len(registry) == 0


def test_threads_share_the_breaker_of_an_origin(
    make: Callable[..., CircuitBreakerTransport], registry: CircuitBreakerRegistry
) -> None:
    """Many first requests at once make one breaker, which loses no count."""
    client = httpx.Client(transport=make(max_breakers=2))
    start = threading.Barrier(8)

    def send() -> None:
        start.wait()
        for _ in range(50):
            client.get(URL)
            client.get(OTHER_URL)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts(registry) == counts(registry, OTHER_ORIGIN) == (0, 400, 0)
    assert len(registry) == 2


async def test_hundreds_of_bodies_are_told_apart(
    transport: CircuitBreakerTransport, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Bodies that are read at once, as HTTP/2 multiplexes them, each have one outcome."""
    upstream.answer(Body([b"piece"] * 3))
    all_begun = asyncio.Barrier(200)

    async def read(client: httpx.AsyncClient, number: int) -> None:
        async with client.stream("GET", URL) as response:
            await all_begun.wait()
            async for _ in response.aiter_raw():
                await asyncio.sleep(0)
                if number % 2:
                    break

    async with httpx.AsyncClient(transport=transport) as client:
        await asyncio.gather(*(read(client, number) for number in range(200)))

    assert counts(registry) == (0, 200, 0)


# --- with what it works


class Recording(httpx.MockTransport):
    """Keeps how it is entered, left and closed."""

    def __init__(self) -> None:
        super().__init__(lambda _: httpx.Response(200))
        self.calls: list[str] = []

    def __enter__(self) -> Self:
        self.calls.append("enter")
        return self

    def __exit__(self, *args: object) -> None:
        self.calls.append("exit")

    def close(self) -> None:
        """Keep that."""
        self.calls.append("close")

    async def __aenter__(self) -> Self:
        self.calls.append("aenter")
        return self

    async def __aexit__(self, *args: object) -> None:
        self.calls.append("aexit")

    async def aclose(self) -> None:
        """Keep that."""
        self.calls.append("aclose")


async def test_wrapped_transport_is_entered_and_closed_with_the_client() -> None:
    """Connections are set up and let go as they are without a breaker."""
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
    """Each hop belongs to the origin that it goes to."""
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
    """As part of a client it may have parameters of its own for some origins."""
    picky = make(failure_threshold=1)
    async with httpx.AsyncClient(transport=make(), mounts={OTHER_ORIGIN: picky}) as client:
        await client.get(URL)
        await client.get(OTHER_URL)

    assert registry.get(ORIGIN).failure_threshold == 2
    assert registry.get(OTHER_ORIGIN).failure_threshold == 1


async def test_works_under_respx(
    way_of: Callable[[CircuitBreakerTransport], Way], registry: CircuitBreakerRegistry
) -> None:
    """Routes of respx answer below the breakers."""
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
    """Status and body of an application count as if they came over the network."""

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
    """Status and body of an application count as if they came over the network."""

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
    """A transport serves the clients that the wrapped one serves; misuse costs no permit."""
    synchronous = CircuitBreakerTransport(httpx.HTTPTransport(), registry=registry)

    with pytest.raises(AttributeError, match="handle_async_request"):
        await httpx.AsyncClient(transport=synchronous).get(URL)

    assert counts(registry) == (0, 0, 0)
    synchronous.close()


def test_one_transport_serves_event_loops_one_after_another(
    transport: CircuitBreakerTransport, registry: CircuitBreakerRegistry
) -> None:
    """Nothing in it belongs to a loop."""

    async def send() -> None:
        await httpx.AsyncClient(transport=transport).get(URL)

    def run(make_call: Callable[[], Awaitable[None]]) -> None:
        asyncio.run(make_call())  # type: ignore[arg-type]

    run(send)
    run(send)

    assert counts(registry) == (0, 2, 0)


# --- what it refuses to be made with


@pytest.mark.parametrize(
    ("parameters", "error", "names"),
    [
        ({"key": "origin"}, TypeError, "key"),
        ({"max_breakers": 0}, ValueError, "max_breakers"),
        ({"max_breakers": True}, TypeError, "max_breakers"),
        ({"max_retry_after_seconds": 0}, ValueError, "max_retry_after_seconds"),
        ({"max_retry_after_seconds": "7"}, TypeError, "max_retry_after_seconds"),
        ({"failure_threshold": 0}, ValueError, "failure_threshold"),
        ({"threshold": 5}, TypeError, "threshold"),
        ({"listeners": [object()]}, TypeError, "listeners"),
        ({"backoff": 2.0, "max_retry_after_seconds": 1.0}, TypeError, "backoff"),
        ({"name": "rates"}, TypeError, "name"),
    ],
)
def test_bad_values_are_refused_at_once(
    make: Callable[..., CircuitBreakerTransport],
    registry: CircuitBreakerRegistry,
    parameters: dict[str, Any],
    error: type[Exception],
    names: str,
) -> None:
    """A mistake shows where it was made, not with the first request, and leaves no breaker."""
    with pytest.raises(error, match=names):
        make(**parameters)

    assert len(registry) == 0


class Watching(CircuitBreakerRegistry):
    """Keeps the names of all that ever were in it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def watch(self, breaker: CircuitBreaker) -> None:
        """Keep the name."""
        self.names.append(breaker.name)
        super().watch(breaker)


def test_nothing_is_registered_before_the_first_request(
    make: Callable[..., CircuitBreakerTransport],
) -> None:
    """Checking the parameters shows nowhere, and they are handed on as they were given."""
    watching, backoff = Watching(), Backoff(multiplier=3.0)

    transport = make(registry=watching, backoff=backoff)

    assert watching.names == []
    assert transport.breaker_for(httpx.Request("GET", URL)).backoff is backoff
    assert watching.names == [ORIGIN]


@pytest.mark.parametrize("given", [None, httpx.Client, "https://api.test"])
def test_only_transports_are_wrapped(given: Any) -> None:
    """A client, or nothing, is refused."""
    with pytest.raises(TypeError, match="transport"):
        CircuitBreakerTransport(given)


def test_default_registry_sees_the_breakers() -> None:
    """Without a word about it the breakers show up where all breakers do."""
    from example_service.infra.resilience import circuit_breaker_registry  # noqa: PLC0415

    transport = CircuitBreakerTransport(Recording())
    httpx.Client(transport=transport).get("https://seen.test/")

    assert "https://seen.test" in circuit_breaker_registry
    del transport
    assert "https://seen.test" not in circuit_breaker_registry
