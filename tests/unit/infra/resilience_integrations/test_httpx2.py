"""The transport in httpx2 clients, above the network layer that `pytest-httpx2` replaces."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias, cast

import httpx
import httpx2
import pytest
import respx

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
    is_upstream_failure,
    transport_breakers,
)
from example_service.infra.resilience.testing import FakeClock

URL = "https://api.test/rates"
ORIGIN = "https://api.test"


class Client:
    """A common interface for both kinds of httpx2 client.

    Args:
        client: The client with the transport.
    """

    def __init__(self, client: httpx2.Client | httpx2.AsyncClient) -> None:
        self.client: Any = client

    async def get(self) -> Any:
        """Send a request, and read the response."""
        response = self.client.get(URL)
        return await response if inspect.isawaitable(response) else response

    async def read_first_line(self) -> str:
        """Read the first line of a response, and close it."""
        if isinstance(self.client, httpx2.Client):
            with self.client.stream("GET", URL) as response:
                return next(response.iter_lines())
        async with self.client.stream("GET", URL) as response:
            lines: AsyncIterator[str] = response.aiter_lines()
            return await anext(lines)


MakeClient: TypeAlias = Callable[..., Client]


class Events(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A stream of events that a reader stops reading before its end."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"data: one\n"
        yield b"data: [DONE]\n"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for line in self:
            yield line


@pytest.fixture(params=["sync", "async"])
def make_client(
    request: pytest.FixtureRequest, clock: FakeClock, registry: CircuitBreakerRegistry
) -> MakeClient:
    """Creates a client of one kind whose breakers open with the second failure."""

    def make(**parameters: Any) -> Client:
        rules: dict[str, Any] = {
            "failure_threshold": 2,
            "success_threshold": 1,
            "recovery_timeout": 10.0,
        }
        rules |= {"clock": clock, "registry": registry}
        chosen = parameters if "breakers" in parameters else rules | parameters
        if request.param == "sync":
            transport = CircuitBreakerTransport(httpx2.HTTPTransport(), **chosen)
            return Client(httpx2.Client(transport=transport))
        transport = CircuitBreakerTransport(httpx2.AsyncHTTPTransport(), **chosen)
        return Client(httpx2.AsyncClient(transport=transport))

    return make


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Failures, successes and calls in flight."""
    return breaker.total_failures, breaker.total_successes, breaker.in_flight


async def test_read_response_is_a_success(
    make_client: MakeClient, httpx2_mock: respx.Router, registry: CircuitBreakerRegistry
) -> None:
    """A response that is read completely counts once, for the breaker of its origin."""
    httpx2_mock.get(URL).respond(json={"rate": "0.92"})

    client = make_client()
    assert (await client.get()).json() == {"rate": "0.92"}
    assert counts(registry.get(ORIGIN)) == (0, 1, 0)


async def test_failing_status_opens_the_circuit_and_a_success_closes_it(
    make_client: MakeClient,
    httpx2_mock: respx.Router,
    registry: CircuitBreakerRegistry,
    clock: FakeClock,
) -> None:
    """Two answers of 503 open it, a refused request is not sent, and a probe closes it."""
    route = httpx2_mock.get(URL).respond(503)
    client = make_client()
    for _ in range(2):
        assert (await client.get()).status_code == 503
    with pytest.raises(CircuitOpenError):
        await client.get()
    assert route.call_count == 2

    route.respond(200)
    clock.advance(10.0)
    assert (await client.get()).status_code == 200
    assert registry.get(ORIGIN).is_closed


async def test_refusal_is_of_both_kinds(make_client: MakeClient, httpx2_mock: respx.Router) -> None:
    """It can be caught as an error of httpx2 and as a `CircuitOpenError`."""
    httpx2_mock.get(URL).respond(503)
    client = make_client(failure_threshold=1)
    await client.get()
    with pytest.raises(httpx2.TransportError) as raised:
        await client.get()

    refusal = raised.value
    assert isinstance(refusal, CircuitOpenError)
    assert refusal.breaker_name == ORIGIN
    assert refusal.retry_after == 10.0
    assert isinstance(refusal.request, httpx2.Request)
    assert str(refusal.request.url) == URL


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (httpx2.ConnectError, 1),
        (httpx2.ReadTimeout, 1),
        (httpx2.RemoteProtocolError, 1),
        (httpx2.PoolTimeout, 0),
        (httpx2.LocalProtocolError, 0),
        (httpx2.UnsupportedProtocol, 0),
    ],
)
async def test_errors_count_unless_their_cause_is_local(
    make_client: MakeClient,
    registry: CircuitBreakerRegistry,
    monkeypatch: pytest.MonkeyPatch,
    error: type[httpx2.TransportError],
    failures: int,
) -> None:
    """Errors of httpx2 count like the errors of httpx with the same names."""

    def fail(*_: object) -> None:
        raise error("broken")

    for kind, name in (
        (httpx2.HTTPTransport, "handle_request"),
        (httpx2.AsyncHTTPTransport, "handle_async_request"),
    ):
        monkeypatch.setattr(kind, name, fail)
    client = make_client()
    with pytest.raises(error):
        await client.get()

    assert counts(registry.get(ORIGIN)) == (failures, 0, 0)
    assert is_upstream_failure(error("broken")) == bool(failures)


async def test_stream_closed_early_is_a_success(
    make_client: MakeClient,
    httpx2_mock: respx.Router,
    registry: CircuitBreakerRegistry,
    clock: FakeClock,
) -> None:
    """A circuit also recovers if its client stops reading at an end marker."""
    route = httpx2_mock.get(URL).respond(503)
    client = make_client(failure_threshold=1, half_open_max_calls=1)
    await client.get()
    clock.advance(10.0)
    route.respond(200, stream=cast("Any", Events()))

    assert await client.read_first_line() == "data: one"
    assert counts(registry.get(ORIGIN)) == (1, 1, 0)
    assert registry.get(ORIGIN).is_closed


@pytest.mark.parametrize(("announced", "seconds"), [("30", 30.0), ("3600", 120.0)])
async def test_an_announced_wait_is_followed_up_to_its_limit(
    make_client: MakeClient, httpx2_mock: respx.Router, announced: str, seconds: float
) -> None:
    """A 429 with `Retry-After` opens the circuit for that time, up to the limit."""
    httpx2_mock.get(URL).respond(429, headers={"Retry-After": announced})
    client = make_client(max_retry_after_seconds=120.0)
    await client.get()
    with pytest.raises(CircuitOpenError) as raised:
        await client.get()

    assert raised.value.retry_after == seconds


async def test_clients_of_both_libraries_share_a_circuit(
    make_client: MakeClient, httpx2_mock: respx.Router, registry: CircuitBreakerRegistry
) -> None:
    """After an outage with httpx, httpx2 is refused as well, with its own kind of error."""
    breakers = transport_breakers(failure_threshold=1, registry=registry)
    old = httpx.AsyncClient(
        transport=CircuitBreakerTransport(
            httpx.MockTransport(lambda _: httpx.Response(503)), breakers=breakers
        )
    )
    route = httpx2_mock.get(URL).respond(200)
    new = make_client(breakers=breakers)

    assert (await new.get()).status_code == 200
    assert (await old.get(URL)).status_code == 503
    with pytest.raises(httpx2.TransportError):
        await new.get()
    with pytest.raises(httpx.TransportError):
        await old.get(URL)
    assert route.call_count == 1
    assert counts(registry.get(ORIGIN)) == (1, 1, 0)


async def test_cancelled_request_counts_for_nothing(
    registry: CircuitBreakerRegistry,
) -> None:
    """A caller that gives up says nothing about the origin, and no call stays in flight."""
    arrived = asyncio.Event()

    async def hang(_: httpx2.Request) -> httpx2.Response:
        arrived.set()
        await asyncio.Event().wait()
        return httpx2.Response(200)

    transport = CircuitBreakerTransport(httpx2.MockTransport(hang), registry=registry)
    async with httpx2.AsyncClient(transport=transport) as client:
        request = asyncio.create_task(client.get(URL))
        await arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    assert counts(registry.get(ORIGIN)) == (0, 0, 0)


async def test_open_for_decides_the_wait_of_a_failed_response(
    make_client: MakeClient, httpx2_mock: respx.Router
) -> None:
    """A breaker's own rule receives the response, and overrides `Retry-After`."""
    httpx2_mock.get(URL).respond(429, headers={"Retry-After": "30", "X-Reset": "7"})
    client = make_client(
        max_retry_after_seconds=120.0,
        open_for=lambda response: float(response.headers["X-Reset"]),
    )
    await client.get()
    with pytest.raises(CircuitOpenError) as raised:
        await client.get()

    assert raised.value.retry_after == 7.0


@pytest.mark.parametrize("parameter", [{"failure_threshold": 3}, {"max_breakers": 256}])
def test_shared_breakers_have_their_parameters_already(parameter: dict[str, Any]) -> None:
    """A parameter beside shared breakers would have no effect, so the error names it."""
    message = f"{next(iter(parameter))} would .* give it to transport_breakers"
    with pytest.raises(TypeError, match=message):
        CircuitBreakerTransport(httpx2.HTTPTransport(), breakers=transport_breakers(), **parameter)


@pytest.mark.parametrize("shared", [False, True])
def test_wait_cannot_be_read_from_responses_that_never_fail(shared: bool) -> None:
    """`Retry-After` is read from failed responses only, so a rule for failures is required."""
    rules: dict[str, Any] = {"is_failed_result": None}
    chosen = {"breakers": transport_breakers(**rules)} if shared else rules
    with pytest.raises(TypeError, match=r"max_retry_after_seconds .* without is_failed_result"):
        CircuitBreakerTransport(httpx2.HTTPTransport(), max_retry_after_seconds=60.0, **chosen)


async def test_retry_after_counts_where_open_for_has_no_answer(
    make_client: MakeClient, httpx2_mock: respx.Router
) -> None:
    """If one way to announce a wait gives none, the other is used."""
    httpx2_mock.get(URL).respond(429, headers={"Retry-After": "300"})
    client = make_client(max_retry_after_seconds=120.0, open_for=lambda _: None)
    await client.get()
    with pytest.raises(CircuitOpenError) as raised:
        await client.get()

    assert raised.value.retry_after == 120.0


def test_group_with_one_error_of_the_upstream_is_a_failure() -> None:
    """In an exception group, errors of httpx2 count, and faults of the client do not."""
    ours, theirs = httpx2.PoolTimeout("full"), httpx2.ConnectError("refused")
    assert is_upstream_failure(ExceptionGroup("both", [ours, ExceptionGroup("", [theirs])]))
    assert not is_upstream_failure(ExceptionGroup("ours", [ours]))


@pytest.mark.parametrize(
    ("wrapped", "library", "other"),
    [
        (httpx2.HTTPTransport(), httpx2, httpx),
        (httpx2.AsyncHTTPTransport(), httpx2, httpx),
        (httpx.HTTPTransport(), httpx, httpx2),
        (httpx.MockTransport(lambda _: httpx.Response(200)), httpx, httpx2),
        (CircuitBreakerTransport(httpx2.HTTPTransport()), httpx2, httpx),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_transport_is_of_the_library_of_the_wrapped_one(
    wrapped: Any, library: Any, other: Any
) -> None:
    """A client may refuse transports of the other library, as Anthropic's does."""

    class Tuned(CircuitBreakerTransport):
        """A subclass defined by a user."""

    for kind in (CircuitBreakerTransport, Tuned):
        transport = kind(wrapped)
        assert isinstance(transport, kind)
        assert isinstance(transport, library.BaseTransport)
        assert isinstance(transport, library.AsyncBaseTransport)
        assert not isinstance(transport, other.BaseTransport | other.AsyncBaseTransport)
        assert type(transport).__name__ == kind.__name__
        assert type(transport) is type(kind(wrapped))


def test_transport_of_both_libraries_stays_one_of_both() -> None:
    """Both kinds of client can still use it."""

    class Both(httpx.BaseTransport, httpx2.BaseTransport):  # type: ignore[misc]
        """A transport for both libraries."""

    transport = CircuitBreakerTransport(Both())
    assert isinstance(transport, httpx.BaseTransport)
    assert isinstance(transport, httpx2.BaseTransport)


@pytest.mark.parametrize(
    ("missing", "printed"),
    [
        ("httpx", "httpx2"),
        ("httpx2", "httpx"),
        ("httpx httpx2", "the circuit breaker's transport needs httpx or httpx2"),
    ],
)
def test_one_of_the_two_libraries_is_enough(missing: str, printed: str) -> None:
    """The transport uses the installed one; without both, the import error names them."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}.split()))\n"
        "try:\n"
        "    from example_service.infra.resilience.httpx import CircuitOpenTransportError\n"
        "    print(CircuitOpenTransportError.__mro__[1].__module__)\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == printed
