"""The client of the payment provider: responses and errors in, our own types out."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
import respx

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.exceptions import (
    InvalidProviderAnswerError,
    NoFreeConnectionError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownCurrencyError,
)
from example_service.payments.provider import PaymentProvider, payment_breaker
from tests.payments.unit.fakes import BASE_URL, Answering, answering

EURO = {"currency": "EUR", "base": "USD", "rate": "0.92"}


@pytest.fixture
async def ask(breaker: CircuitBreaker) -> AsyncIterator[Callable[..., Any]]:
    """Call a provider that responds as its argument says."""
    clients = []

    async def ask(answer: Answering, currency: str = "EUR") -> Any:
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        clients.append(client)
        return await PaymentProvider(client, BASE_URL, breaker).exchange_rate(currency)

    yield ask
    for client in clients:
        await client.aclose()


def raising(error: type[httpx.TransportError]) -> Answering:
    """A provider whose calls fail with an error of the HTTP library."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise error("secret of the provider", request=request)

    return answer


async def test_an_exchange_rate_is_read_exactly(breaker: CircuitBreaker) -> None:
    """The rate keeps the provider's digits; the base URL may end in a slash."""
    with respx.mock(base_url=BASE_URL) as mock:
        route = mock.get("/v1/rates/EUR").respond(json=EURO)
        async with httpx.AsyncClient() as client:
            rate = await PaymentProvider(client, BASE_URL + "/", breaker).exchange_rate("EUR")
    assert (rate.currency, rate.base, rate.rate) == ("EUR", "USD", Decimal("0.92"))
    assert route.calls.last.request.headers["Accept-Encoding"] == "identity"
    assert breaker.total_successes == 1


# The translation of each error of the HTTP library. None means that no provider can cause it: it is
# an error of this service and passes through unchanged.
TRANSLATIONS: dict[type[httpx.TransportError], type[ProviderError] | None] = {
    httpx.ConnectTimeout: ProviderTimeoutError,
    httpx.ReadTimeout: ProviderTimeoutError,
    httpx.WriteTimeout: ProviderTimeoutError,
    httpx.PoolTimeout: NoFreeConnectionError,
    httpx.ConnectError: ProviderUnavailableError,
    httpx.ReadError: ProviderUnavailableError,
    httpx.WriteError: ProviderUnavailableError,
    httpx.CloseError: ProviderUnavailableError,
    httpx.ProxyError: ProviderUnavailableError,
    httpx.RemoteProtocolError: ProviderUnavailableError,
    httpx.LocalProtocolError: None,
    httpx.UnsupportedProtocol: None,
}


def leaves(error: type[Any]) -> set[type[Any]]:
    """The most derived exception classes of httpx below a class."""
    derived = [subclass for subclass in error.__subclasses__() if subclass.__module__ == "httpx"]
    return set().union(*map(leaves, derived)) if derived else {error}


def test_every_transport_error_of_httpx_is_considered() -> None:
    """If a release of httpx adds an error, this fails until its meaning is decided."""
    assert leaves(httpx.TransportError) == set(TRANSLATIONS)


@pytest.mark.parametrize("error", TRANSLATIONS)
async def test_errors_of_the_http_library_end_at_the_border(
    error: type[httpx.TransportError], ask: Any, breaker: CircuitBreaker
) -> None:
    """Each becomes ours with its cause; only the provider's faults count as failures."""
    expected = TRANSLATIONS[error] or error
    with pytest.raises(expected) as caught:
        await ask(raising(error))
    assert type(caught.value) is expected
    if expected is not error:
        assert isinstance(caught.value.__cause__, error)
        assert "secret" not in str(caught.value)
    counts = issubclass(expected, ProviderUnavailableError)
    assert (breaker.total_failures, breaker.total_successes) == (counts, 0)


class BrokenBody(httpx.AsyncByteStream):
    """A body whose connection breaks after a few bytes."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        raise self.error


@pytest.mark.parametrize("error", [ssl.SSLError("secret"), OSError("secret")], ids=repr)
@pytest.mark.parametrize("is_in_body", [False, True])
async def test_errors_of_a_connection_end_at_the_border(
    *, error: OSError, is_in_body: bool, ask: Any, breaker: CircuitBreaker
) -> None:
    """One that httpx does not translate is a TLS record that cannot be decrypted."""

    def answer(_: httpx.Request) -> httpx.Response:
        if is_in_body:
            return httpx.Response(200, stream=BrokenBody(error))
        raise error

    with pytest.raises(ProviderUnavailableError) as caught:
        await ask(answer)
    assert caught.value.__cause__ is error
    assert "secret" not in str(caught.value)
    assert breaker.total_failures == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
async def test_a_provider_that_cannot_serve_counts_as_failure(
    status: int, ask: Any, breaker: CircuitBreaker
) -> None:
    """Server errors and 429 mean that the provider is down or overloaded."""
    with pytest.raises(ProviderUnavailableError) as caught:
        await ask(answering(status, text="secret of the provider"))
    assert str(status) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert breaker.total_failures == 1


async def test_an_unknown_currency_is_an_answer_of_a_living_provider(
    ask: Any, breaker: CircuitBreaker
) -> None:
    """Any number of 404s that name the currency leaves the circuit closed."""
    unknown = {"currency": "XXX", "error": "secret of the provider"}
    for _ in range(20):
        with pytest.raises(UnknownCurrencyError, match="no exchange rate for this currency"):
            await ask(answering(404, json=unknown), "XXX")
    assert breaker.is_closed
    assert breaker.total_failures == 0


@pytest.mark.parametrize(
    "content",
    [
        {"text": "secret"},
        {"html": "<title>secret</title>"},
        {"json": {"error": "not found"}},
        {"json": {"currency": "EUR", "error": "unknown currency"}},
        {"json": {"currency": "XXX"}},
    ],
    ids=str,
)
async def test_a_404_from_elsewhere_is_not_an_answer(
    content: dict[str, Any], ask: Any, breaker: CircuitBreaker
) -> None:
    """A gateway responds like this for every path."""
    with pytest.raises(InvalidProviderAnswerError) as caught:
        await ask(answering(404, **content), "XXX")
    assert "secret" not in str(caught.value)
    assert breaker.total_failures == 1


@pytest.mark.parametrize("status", [400, 401, 403, 407, 422])
async def test_a_rate_is_never_refused(status: int, ask: Any, breaker: CircuitBreaker) -> None:
    """Such a response comes from another server or a misconfigured provider."""
    with pytest.raises(InvalidProviderAnswerError, match=str(status)):
        await ask(answering(status, json=EURO))
    assert breaker.total_failures == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"content": b""},
        {"content": b"null"},
        {"content": b'{"currency": "EUR", "ra'},
        {"content": b"\xff\xfe\x00"},
        {"html": "<title>Bad gateway</title>"},
        {"json": []},
        {"json": {"data": [EURO]}},
        {"json": {**EURO, "rate": None}},
        {"json": {**EURO, "rate": "much"}},
        {"json": {**EURO, "rate": "0"}},
        {"json": {**EURO, "rate": "-0.92"}},
        {"json": {**EURO, "rate": "NaN"}},
        {"json": {**EURO, "rate": "Infinity"}},
        {"json": {**EURO, "rate": "1e9999"}},
        {"json": {**EURO, "rate": True}},
        {"json": {**EURO, "base": "dollars"}},
        {"json": {**EURO, "currency": "GBP"}},
    ],
    ids=str,
)
async def test_a_broken_body_counts_as_failure(
    broken: dict[str, Any], ask: Any, breaker: CircuitBreaker
) -> None:
    """Anything but the requested exchange rate is invalid."""
    with pytest.raises(InvalidProviderAnswerError) as caught:
        await ask(answering(200, **broken))
    assert "much" not in str(caught.value)
    assert breaker.total_failures == 1


async def test_a_compressed_answer_is_not_unpacked(ask: Any, breaker: CircuitBreaker) -> None:
    """Compression was not requested, and the body might be a bomb."""
    body = EndlessBody(lambda: asyncio.sleep(0))
    with pytest.raises(InvalidProviderAnswerError):
        await ask(answering(200, headers={"Content-Encoding": "gzip"}, stream=body))
    assert (body.sent, body.closed) == (0, True)
    assert breaker.total_failures == 1


async def test_names_of_encodings_are_the_same_in_any_case(ask: Any) -> None:
    """An uncompressed response that says so is an answer."""
    answer = answering(200, headers={"Content-Encoding": "Identity"}, json=EURO)
    assert (await ask(answer)).currency == "EUR"


@pytest.mark.parametrize(
    "location",
    ["http:login", "//xn--:", "//[login", "//" + "a" * 65_530, "\x00"],
    ids=["no host", "international", "IPv6", "long", "NUL"],
)
@pytest.mark.parametrize("status", [301, 307])
async def test_a_redirect_to_an_invalid_address_counts_as_failure(
    status: int, location: str, ask: Any, breaker: CircuitBreaker
) -> None:
    """Httpx parses the address although the redirect is not followed, and raises various errors."""
    with pytest.raises(ProviderUnavailableError):
        await ask(answering(status, headers={"Location": location}))
    assert breaker.total_failures == 1


@pytest.mark.parametrize("status", [204, 206, 301, 302, 304])
async def test_a_status_outside_the_contract_counts_as_failure(
    status: int, ask: Any, breaker: CircuitBreaker
) -> None:
    """A redirect, for example to a maintenance page, is not followed."""
    with pytest.raises(InvalidProviderAnswerError):
        await ask(answering(status, headers={"Location": f"{BASE_URL}/v1/rates/EUR"}, json=EURO))
    assert breaker.total_failures == 1


class EndlessBody(httpx.AsyncByteStream):
    """A body that continues until its reader stops."""

    def __init__(self, between: Callable[[], Any]) -> None:
        self.sent = 0
        self.closed = False
        self._between = between

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1024
            yield b" " * 1024
            await self._between()

    async def aclose(self) -> None:
        """Record it."""
        self.closed = True


async def test_a_body_without_end_is_read_up_to_the_limit(
    ask: Any, breaker: CircuitBreaker
) -> None:
    """The connection is closed at 64 KiB, which protects the memory."""
    body = EndlessBody(lambda: asyncio.sleep(0))
    with pytest.raises(InvalidProviderAnswerError):
        await ask(answering(200, stream=body))
    assert body.sent == 65 * 1024
    assert body.closed
    assert breaker.total_failures == 1


async def test_a_body_that_drips_ends_with_the_time_of_the_call(breaker: CircuitBreaker) -> None:
    """Each single read is fast enough, but the whole call has a timeout."""
    never = asyncio.Event()
    body = EndlessBody(never.wait)
    transport = httpx.MockTransport(answering(200, stream=body))
    async with httpx.AsyncClient(transport=transport) as client:
        provider = PaymentProvider(client, BASE_URL, breaker, timeout_seconds=0.01)
        with pytest.raises(ProviderTimeoutError) as caught:
            await provider.exchange_rate("EUR")
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert body.closed
    assert breaker.total_failures == 1


async def test_a_cancelled_call_counts_for_nothing(breaker: CircuitBreaker) -> None:
    """A client that leaves says nothing about the provider."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def answer(_request: httpx.Request) -> httpx.Response:
        begun.set()
        await never.wait()
        raise AssertionError("unreachable")

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        call = asyncio.create_task(PaymentProvider(client, BASE_URL, breaker).exchange_rate("EUR"))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    metrics = breaker.get_metrics()
    assert (metrics["total_failures"], metrics["in_flight"]) == (0, 0)


async def test_five_failures_open_the_circuit_and_two_successes_close_it() -> None:
    """An open circuit sends no request, and the provider's recovery is noticed."""
    clock = FakeClock()
    registry = CircuitBreakerRegistry()
    registry.configure({"payment": {"clock": clock}})
    breaker = payment_breaker(registry)
    with respx.mock(base_url=BASE_URL) as mock:
        route = mock.get("/v1/rates/EUR").respond(503)
        async with httpx.AsyncClient() as client:
            provider = PaymentProvider(client, BASE_URL, breaker)
            for _ in range(5):
                with pytest.raises(ProviderUnavailableError):
                    await provider.exchange_rate("EUR")
            assert breaker.is_open
            with pytest.raises(CircuitOpenError) as caught:
                await provider.exchange_rate("EUR")
            assert (caught.value.breaker_name, caught.value.retry_after) == ("payment", 60.0)
            assert route.call_count == 5

            clock.advance(60)
            route.respond(json=EURO)
            await provider.exchange_rate("EUR")
            assert breaker.is_half_open
            await provider.exchange_rate("EUR")
            assert breaker.is_closed


def test_the_payment_breaker_is_one_for_the_process_and_takes_settings() -> None:
    """Each lookup returns the same object with the configured parameters."""
    registry = CircuitBreakerRegistry()
    registry.configure({"payment": {"failure_threshold": 3}})
    breaker = payment_breaker(registry)
    assert payment_breaker(registry) is breaker
    assert (breaker.name, breaker.failure_threshold) == ("payment", 3)
    assert breaker.expected_exception is ProviderUnavailableError
