"""Which breaker a request belongs to."""

from collections.abc import Callable

import httpx
import pytest

from example_service.infra.resilience import (
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
    CircuitOpenTransportError,
    origin_of,
)
from tests.unit.infra.resilience_integrations.httpx.upstream import (
    ORIGIN,
    OTHER_ORIGIN,
    OTHER_URL,
    URL,
    Upstream,
    Way,
    opened,
)


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
def test_equal_origins_have_equal_names(url: str, origin: str) -> None:
    """It consists of scheme, host and port only, in one spelling and of limited length."""
    assert origin_of(httpx.Request("GET", url)) == origin


async def test_each_origin_has_a_breaker_of_its_own(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Requests to one origin are refused while the others are still called."""
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
    """The given function decides which breaker a request uses, and its name."""
    way = way_of(make(key=lambda request: f"everything that {request.method} asks for"))
    await opened(way, upstream)

    with pytest.raises(CircuitOpenError):
        await way.get(OTHER_URL)

    assert [breaker.name for breaker in registry] == ["everything that GET asks for"]


def test_breaker_can_be_had_before_the_first_request(
    transport: CircuitBreakerTransport, upstream: Upstream
) -> None:
    """A mode that is set on a request's breaker applies to that request."""
    breaker = transport.breaker_for(httpx.Request("GET", URL))
    breaker.force_open("maintenance")

    with pytest.raises(CircuitOpenTransportError) as caught:
        httpx.Client(transport=transport).get(URL)

    assert caught.value.retry_after is None
    assert upstream.requests == []
    assert transport.breaker_for(httpx.Request("POST", ORIGIN)) is breaker
