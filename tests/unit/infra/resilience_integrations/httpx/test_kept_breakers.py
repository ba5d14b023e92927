"""How many breakers a transport keeps, also with several threads."""

import asyncio
import logging
import threading
from collections.abc import Callable

import httpx
import pytest

from example_service.infra.resilience import (
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience_integrations.httpx.upstream import (
    ORIGIN,
    OTHER_ORIGIN,
    OTHER_URL,
    URL,
    Body,
    Upstream,
    Way,
    counts,
    opened,
)


def url_of(number: int) -> str:
    """The URL of one of many origins."""
    return f"https://{number}.test"


async def test_breaker_not_used_for_longest_makes_room(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    registry: CircuitBreakerRegistry,
) -> None:
    """It is also removed from the registry, with its metric series."""
    way = way_of(make(max_breakers=2))

    for number in (1, 2, 1, 3):
        await way.get(url_of(number))

    assert {snapshot.name for snapshot in registry.snapshots()} == {url_of(1), url_of(3)}


def test_thousands_of_origins_leave_as_many_breakers_as_are_kept(
    make: Callable[..., CircuitBreakerTransport], registry: CircuitBreakerRegistry
) -> None:
    """The number of breakers is limited, whatever the number of origins."""
    transport = make(max_breakers=20)

    for number in range(3000):
        transport.breaker_for(httpx.Request("GET", url_of(number)))

    assert {breaker.name for breaker in registry} == {
        url_of(number) for number in range(2980, 3000)
    }


async def test_breakers_with_something_to_remember_stay(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
) -> None:
    """A breaker that is open, in use or in a mode is kept, even if it has long been idle."""
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
    """Origins that are permanently down do not occupy all places forever."""
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
    assert {event.breaker_name for event in listener.events} == {url_of(5), url_of(6)}


async def test_without_a_free_breaker_a_further_origin_is_called_unguarded(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    registry: CircuitBreakerRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If all breakers are needed, further origins have none, which is logged once."""
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
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage() == (
        f"All 1 circuit breakers of a set are open or in use, so '{OTHER_ORIGIN}' is not guarded; "
        "this is logged only once"
    )


def test_breakers_go_with_their_transport(
    make: Callable[..., CircuitBreakerTransport], registry: CircuitBreakerRegistry
) -> None:
    """A transport that is no longer used leaves nothing in the registry."""
    httpx.Client(transport=make()).get(URL)

    assert len(registry) == 0


def test_threads_share_the_breaker_of_an_origin(
    make: Callable[..., CircuitBreakerTransport], registry: CircuitBreakerRegistry
) -> None:
    """Many simultaneous first requests create one breaker, which loses no count."""
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


async def test_hundreds_of_bodies_are_distinguished(
    transport: CircuitBreakerTransport, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Bodies that are read in parallel, as with HTTP/2, have one outcome each."""
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
