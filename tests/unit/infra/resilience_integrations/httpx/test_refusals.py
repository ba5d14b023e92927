"""The error that a refused request raises."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from example_service.infra.resilience import (
    CircuitOpenError,
    CircuitState,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
    CircuitOpenTransportError,
)
from tests.unit.infra.resilience_integrations.httpx.upstream import (
    ORIGIN,
    URL,
    Upstream,
    Way,
    opened,
)


async def refusal(way: Way, upstream: Upstream) -> CircuitOpenTransportError:
    """The error that the caller of an open circuit receives."""
    await opened(way, upstream)
    with pytest.raises(CircuitOpenTransportError) as caught:
        await way.get()
    return caught.value


async def test_refusal_is_of_both_kinds(way: Way, upstream: Upstream) -> None:
    """Both `except httpx.TransportError` and `except CircuitOpenError` catch it."""
    refused = await refusal(way, upstream)

    assert isinstance(refused, httpx.TransportError)
    assert isinstance(refused, CircuitOpenError)
    assert len(upstream.requests) == 2


async def test_a_refusal_has_the_attributes_of_both_kinds(way: Way, upstream: Upstream) -> None:
    """It has the breaker, state, wait and reason, and the refused request."""
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
    """Code that calls the transport directly also gets the refused request."""
    request = httpx.Request("GET", URL)
    transport.breaker_for(request).force_open("maintenance")

    with pytest.raises(CircuitOpenTransportError) as caught:
        transport.handle_request(request)
    with pytest.raises(CircuitOpenTransportError) as caught_async:
        await transport.handle_async_request(request)

    assert caught.value.request is caught_async.value.request is request


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301
)
async def test_a_refusal_can_be_copied_and_pickled(
    way: Way, upstream: Upstream, duplicate: Callable[[Any], CircuitOpenTransportError]
) -> None:
    """A pickled or copied refusal has the same details."""
    refused = await refusal(way, upstream)

    received = duplicate(refused)

    assert type(received) is CircuitOpenTransportError
    assert received.args == refused.args
    assert str(received) == str(refused)
    assert received.request.url == URL
    assert received.retry_after == refused.retry_after


def test_refusal_may_be_a_message_alone() -> None:
    """A fake origin can raise it without a breaker, like its parent classes."""
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
    """The body of a refused request is not read, so that the request can be sent later."""
    await opened(way_of(transport), upstream)
    pieces = iter([b"one"])

    with pytest.raises(CircuitOpenError):
        httpx.Client(transport=transport).post(URL, content=pieces)

    assert list(pieces) == [b"one"]
