"""When the outcome of a request is decided."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import cast

import httpx
import pytest

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
    StateChanged,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience_integrations.httpx.upstream import (
    ORIGIN,
    URL,
    WAYS,
    Body,
    Upstream,
    Way,
    counts,
    opened,
)


async def test_success_is_known_at_the_end_of_the_body(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """A body keeps its permit while it is read; closing it afterwards does not count again."""
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
    """An empty body ends like any other."""
    upstream.answer(Body(chunks))

    assert (await way.get()).content == b""
    assert counts(registry) == (0, 1, 0)


async def test_body_that_breaks_off_is_a_failure(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Good headers do not hide that the origin fails in the middle of its answers."""
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
    """Errors within a body are classified like errors before it."""
    upstream.answer(Body(error=httpx.LocalProtocolError("ours")))

    with pytest.raises(httpx.LocalProtocolError):
        await way.get()

    assert counts(registry) == (0, 0, 0)


async def test_body_closed_early_is_a_success(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """The origin answered with good headers, and the reader needed no more."""
    body = Body()
    upstream.answer(body)

    async with way.stream() as response:
        assert await way.read_first(response) == b"one"
        assert counts(registry) == (0, 0, 1)

    assert counts(registry) == (0, 1, 0)
    assert body.closed == 1


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_dropped_response_frees_its_slot(
    make: Callable[..., CircuitBreakerTransport],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    clock: FakeClock,
    is_read: bool,
) -> None:
    """A reader that drops a response does not occupy the only probe until `probe_timeout`."""
    transport = make(half_open_max_calls=1)
    way = WAYS["sync"](transport)
    await opened(way, upstream)
    clock.advance(60.0)
    upstream.answer(Body())
    response = transport.handle_request(httpx.Request("GET", URL))
    if is_read:
        assert next(response.iter_raw()) == b"one"
    with pytest.raises(CircuitOpenError):
        await way.get()

    del response
    gc.collect()

    assert counts(registry) == (2, 0, 0)
    assert (await way.get()).content == b"onetwo"
    assert registry.get(ORIGIN).is_closed


class Emptied(httpx.AsyncByteStream):
    """A body that yields one chunk to each reader and then continues in a given way.

    Args:
        go_on: What follows the chunk.
    """

    def __init__(self, go_on: Callable[[], Awaitable[None]]) -> None:
        self.go_on = go_on

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: [DONE]"
        await self.go_on()


async def never() -> None:
    """Wait forever."""
    await asyncio.Event().wait()


async def break_off() -> None:
    """Lose the connection."""
    raise httpx.ReadError("broken")


@pytest.mark.parametrize("go_on", [never, break_off])
async def test_reading_the_rest_of_a_body_is_not_part_of_the_call(
    registry: CircuitBreakerRegistry, go_on: Callable[[], Awaitable[None]]
) -> None:
    """After its end marker, a reader reads the rest so that the connection can be reused."""

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


def test_reading_the_rest_of_a_body_is_not_part_of_a_synchronous_call(
    transport: CircuitBreakerTransport, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Its reader has what it needs."""
    upstream.answer(Body(error=httpx.ReadError("broken")))
    with httpx.Client(transport=transport).stream("GET", URL) as response:
        for _ in response.iter_raw():
            with pytest.raises(httpx.ReadError):
                list(cast("httpx.SyncByteStream", response.stream))
            break

    assert counts(registry) == (0, 1, 0)


async def test_a_caller_that_is_cancelled_while_it_reads_a_body_is_neutral(
    registry: CircuitBreakerRegistry,
) -> None:
    """The caller gave up the whole call."""
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
    """A `BaseException` stopped the reader before it had read enough."""
    upstream.answer(Body())
    client = httpx.Client(transport=transport)
    with pytest.raises(interruption), client.stream("GET", URL):
        raise interruption

    assert counts(registry) == (0, 0, 0)


async def test_body_that_goes_on_after_closing_counts_once(
    transport: CircuitBreakerTransport, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """If one thread closes a body that another one reads, the first outcome counts."""
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
    """A connection that breaks while closing is a failure, unless the answer was complete."""
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
    """It no longer matters whether its body is read, breaks off or is closed early."""
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
    """Without a body, there is nothing left to read."""
    body = Body([])
    headers = {"Content-Length": str(length)}
    upstream.answer(httpx.Response(status, headers=headers, stream=body))

    async with way.stream(method=method):
        assert counts(registry) == (0, 1, 0)

    assert counts(registry) == (0, 1, 0)
    assert body.closed == 1


async def test_response_without_an_announced_end_ends_with_its_headers(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """A response made from bytes is already closed, so it is not closed again."""
    upstream.answer(httpx.Response(200, content=b"answer"))

    async with way.stream():
        assert counts(registry) == (0, 1, 0)


async def test_a_probe_keeps_its_slot_until_its_body_ends(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, clock: FakeClock
) -> None:
    """In a half-open circuit, only as many bodies as probes are read at a time."""
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
    """A body that exceeds the time limit of a probe opens the circuit again, and counts once."""
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
    """Bodies that arrive slowly open the circuit while they are still being read."""
    way = way_of(make(slow_call_duration=2.0))
    upstream.answer(Body())

    async with way.stream() as first, way.stream():
        clock.advance(2.0)
        with pytest.raises(CircuitOpenError):
            await way.get()
        await way.read(first)

    assert counts(registry) == (2, 0, 0)


async def test_listeners_receive_every_event_of_an_outage(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    clock: FakeClock,
    listener: RecordingListener,
) -> None:
    """From failure through refusal to recovery, each request is reported once."""
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
    story = [event for event in listener.events if not isinstance(event, StateChanged)]
    states = [event.to_state for event in listener.events if isinstance(event, StateChanged)]
    assert story == [
        failed,
        failed,
        CallRejected(ORIGIN, CircuitState.OPEN, 60.0),
        CallSucceeded(ORIGIN, 2.0),
    ]
    assert states == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]


class Hanging(httpx.AsyncByteStream, httpx.AsyncBaseTransport):
    """A transport whose answer or body never comes, with an event for when it hangs.

    Args:
        sends_headers: Whether it sends headers and hangs in the body.
    """

    def __init__(self, sends_headers: bool) -> None:
        self.sends_headers = sends_headers
        self.is_reached = asyncio.Event()

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        """Hang before or after the headers."""
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
    """A caller that gives up returns the permit, before the headers and in the body."""
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
