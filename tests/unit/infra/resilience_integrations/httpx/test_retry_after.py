"""How long the circuit stays open when the upstream announces a wait."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx
import pytest

from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
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
    OTHER_ORIGIN,
    OTHER_URL,
    URL,
    Upstream,
    Way,
)


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
    """A failed response with seconds or a date opens the circuit at once, up to the limit."""
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
    """It is called with the failed response, and replaces the header."""
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
async def test_an_invalid_announced_wait_is_ignored(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    value: str,
) -> None:
    """For a date in the past or an invalid value, the usual wait applies."""
    way = way_of(make(max_retry_after_seconds=300.0))
    upstream.answer(httpx.Response(429, headers=[(b"Retry-After", value.encode())]))
    for _ in range(2):
        await way.get()

    with pytest.raises(CircuitOpenError) as caught:
        await way.get()

    assert caught.value.retry_after == 60.0


async def test_an_announced_wait_is_ignored_by_default(way: Way, upstream: Upstream) -> None:
    """By default, the origin does not decide how long the circuit stays open."""
    upstream.answer(httpx.Response(503, headers={"Retry-After": "7"}))
    for _ in range(2):
        await way.get()

    with pytest.raises(CircuitOpenError) as caught:
        await way.get()

    assert caught.value.retry_after == 60.0


async def test_an_announced_wait_applies_to_one_opening(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    upstream: Upstream,
    clock: FakeClock,
    listener: RecordingListener,
) -> None:
    """Openings for other reasons have the usual wait, with the given backoff."""
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

    opened = [
        event for event in listener.events if isinstance(event, StateChanged) and event.wait_seconds
    ]
    assert [event.wait_seconds for event in opened] == [7.0, 180.0, 540.0, 7.0]
    shown = transport.breaker_for(httpx.Request("GET", URL)).backoff
    assert (shown.multiplier, shown.max_timeout) == (3.0, 1000.0)


class Bystander:
    """A listener that opens another circuit, directly and in a task."""

    def __init__(self, failing: Callable[[], Awaitable[object]], other: CircuitBreaker) -> None:
        self.failing = failing
        self.other = other
        self.later: asyncio.Task[object] | None = None

    def on_state_change(self, _: StateChanged, /) -> None:
        """Open these circuits."""
        with suppress(ZeroDivisionError):
            self.other.call_sync(divmod, 1, 0)
        if self.later is None:
            self.later = asyncio.create_task(asyncio.wait_for(self.failing(), 60.0))


async def test_an_announced_wait_applies_to_one_origin(
    make: Callable[..., CircuitBreakerTransport], clock: FakeClock
) -> None:
    """A listener, its tasks and other transports do not inherit the wait."""
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
