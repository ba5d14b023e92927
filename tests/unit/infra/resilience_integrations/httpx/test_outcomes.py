"""Which responses and errors count."""

import ssl
from collections.abc import Callable

import httpx
import pytest

from example_service.infra.resilience import (
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
    is_failed_response,
    is_upstream_failure,
)
from example_service.infra.resilience.testing import RecordingListener
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
async def test_the_status_decides_whether_the_origin_fails(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, status: int, failed: bool
) -> None:
    """429 and 5xx are failures, and still reach the caller; other answers are successes."""
    upstream.answer(status)

    assert (await way.get()).status_code == status
    assert counts(registry) == (int(failed), int(not failed), 0)
    assert is_failed_response(httpx.Response(status)) is failed


# Every transport error of httpx, and whether the other side caused it.
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
    """If a release of httpx adds an error, it must be added to the table."""
    exported = {name: getattr(httpx, name) for name in httpx.__all__}
    errors = {
        name
        for name, value in exported.items()
        if isinstance(value, type) and issubclass(value, httpx.TransportError)
    }

    assert errors == set(TRANSPORT_ERRORS)


@pytest.mark.parametrize(("name", "failed"), TRANSPORT_ERRORS.items())
async def test_an_error_of_the_transport_counts_unless_its_cause_is_local(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, name: str, failed: bool
) -> None:
    """Errors of the network or of the other side are failures, and our own are neutral."""
    error = getattr(httpx, name)("broken")
    upstream.answer(error)

    with pytest.raises(httpx.TransportError) as caught:
        await way.get()

    assert caught.value is error
    assert counts(registry) == (int(failed), 0, 0)
    assert is_upstream_failure(error) is failed


async def test_a_broken_tls_record_is_a_failure(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Asynchronous transports of httpx raise the error of the standard library."""
    error = ssl.SSLError("bad record mac")
    upstream.answer(error)

    with pytest.raises(ssl.SSLError):
        await way.get()

    assert counts(registry) == (1, 0, 0)
    assert is_upstream_failure(error)


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), httpx.DecodingError("not gzip"), httpx.StreamConsumed()]
)
async def test_other_errors_count_for_nothing(
    way: Way, upstream: Upstream, registry: CircuitBreakerRegistry, error: Exception
) -> None:
    """An error from elsewhere is passed on, and says nothing about the origin."""
    upstream.answer(error)

    with pytest.raises(type(error)):
        await way.get()

    assert counts(registry) == (0, 0, 0)
    assert not is_upstream_failure(error)


def test_interruption_counts_for_nothing(
    transport: CircuitBreakerTransport, upstream: Upstream, registry: CircuitBreakerRegistry
) -> None:
    """Ctrl+C says nothing about the origin, and returns the permit."""
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
    """If transports are nested, the outer one does not count refusals of the inner one."""
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
    """Given rules replace the default ones, for each origin."""
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
    """Without a rule for responses, every response is a success."""
    upstream.answer(503)

    way = way_of(make(is_failed_result=None))
    await way.get()

    assert counts(registry) == (0, 1, 0)


async def test_every_breaker_has_the_listeners(
    make: Callable[..., CircuitBreakerTransport],
    way_of: Callable[[CircuitBreakerTransport], Way],
    listener: RecordingListener,
) -> None:
    """Listeners given as an iterator also receive events of a second origin."""
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
    """If evaluating a response raises, its body is closed and its permit returned."""
    body = Body()
    upstream.answer(body)

    way = way_of(make(is_failed_result=lambda response: response.headers["X"]))
    with pytest.raises(KeyError):
        await way.get()

    assert body.closed == 1
    assert counts(registry) == (0, 0, 0)
