"""Exchange rates through the whole application with a fake provider."""

from collections.abc import Iterator

import httpx
import pytest
import respx
from fastapi import FastAPI

from example_service.core.settings import Settings
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.infra.resilience.testing import FakeClock
from example_service.main import create_app
from example_service.payments.exceptions import ProviderUnavailableError
from example_service.payments.settings import PaymentProviderSettings
from tests.payments.api.orders import PROVIDER_URL

EURO = {"currency": "EUR", "base": "USD", "rate": "0.92"}
UNKNOWN = {"currency": "EUR", "error": "secret"}
EUROS = "/api/v1/exchange-rates/EUR"


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


@pytest.fixture(autouse=True)
def breaker(clock: FakeClock) -> Iterator[CircuitBreaker]:
    """The breaker that the application finds, with a clock that the test controls."""
    if "payment" in circuit_breaker_registry:
        circuit_breaker_registry.unregister("payment")
    yield circuit_breaker_registry.get_or_create(
        "payment", expected_exception=ProviderUnavailableError, clock=clock
    )
    circuit_breaker_registry.unregister("payment")


@pytest.fixture
def app() -> FastAPI:
    """The application with a provider."""
    provider = PaymentProviderSettings(base_url=PROVIDER_URL)
    return create_app(Settings(environment="test", payment_provider=provider))


@pytest.fixture
def provider() -> Iterator[respx.Route]:
    """The provider's response about euros; a rate unless a test changes it."""
    with respx.mock(base_url=PROVIDER_URL, assert_all_called=False) as mock:
        yield mock.get("/v1/rates/EUR").respond(json=EURO)


async def problem(client: httpx.AsyncClient, path: str = EUROS) -> tuple[int, str]:
    """Return status and slug of the problem response, which must not repeat the provider's words.

    Every fake response contains "secret", which must reach no client.
    """
    response = await client.get(path)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in response.text
    body = response.json()
    assert body["status"] == response.status_code
    return response.status_code, body["type"].removeprefix("/problems/")


async def test_the_rate_is_answered_as_the_provider_has_it(
    client: httpx.AsyncClient, provider: respx.Route
) -> None:
    """The digits stay exact as text, and the provider gets the IDs of the request."""
    response = await client.get(EUROS, headers={"X-Request-ID": "mine"})
    assert (response.status_code, response.json()) == (200, EURO)
    sent = provider.calls.last.request.headers
    assert sent["X-Request-ID"] == "mine"
    assert sent["traceparent"] == response.headers["traceparent"]


@pytest.mark.parametrize("currency", ["eur", "EURO", "EU", "E1R", "EUR%0A", "..%2F", "ÄÖÜ"])
async def test_an_invalid_currency_code_does_not_reach_the_provider(
    currency: str, client: httpx.AsyncClient, provider: respx.Route
) -> None:
    """It is refused as invalid input, or its path does not exist."""
    status, _ = await problem(client, f"/api/v1/exchange-rates/{currency}")
    assert status in {404, 422}
    assert not provider.called


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(503, text="secret"), (502, "provider-unavailable")),
        (httpx.Response(429, text="secret"), (502, "provider-unavailable")),
        (httpx.Response(200, text="secret"), (502, "provider-unavailable")),
        (httpx.Response(302, headers={"Location": "/secret"}), (502, "provider-unavailable")),
        (httpx.ConnectError("secret"), (502, "provider-unavailable")),
        (httpx.ReadTimeout("secret"), (504, "provider-timeout")),
        (httpx.Response(404, json=UNKNOWN), (404, "unknown-currency")),
        (httpx.Response(404, text="secret"), (502, "provider-unavailable")),
        (httpx.Response(401, json=UNKNOWN), (502, "provider-unavailable")),
        (httpx.PoolTimeout("secret"), (503, "provider-connections-busy")),
    ],
)
async def test_each_fault_of_the_provider_is_its_own_problem(
    answer: httpx.Response | Exception,
    expected: tuple[int, str],
    client: httpx.AsyncClient,
    provider: respx.Route,
) -> None:
    """The client learns what to do, and sees none of the provider's words."""
    provider.mock(side_effect=[answer])
    assert await problem(client) == expected


async def test_a_busy_service_says_when_to_come_back(
    client: httpx.AsyncClient, provider: respx.Route
) -> None:
    """Connections to the provider are free again soon."""
    provider.mock(side_effect=httpx.PoolTimeout)
    assert (await client.get(EUROS)).headers["Retry-After"] == "1"


@pytest.mark.parametrize(("status", "logged"), [(401, True), (404, True), (503, False)])
async def test_an_answer_out_of_place_is_logged_with_its_status(
    status: int,
    logged: bool,
    client: httpx.AsyncClient,
    provider: respx.Route,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise an operator would not notice wrong credentials."""
    provider.respond(status, json={})
    await client.get(EUROS)
    warnings = [record for record in caplog.records if "problems.answers" in record.name]
    assert [str(status) in record.getMessage() for record in warnings] == [True] * logged


async def test_the_circuit_opens_and_closes_again(
    client: httpx.AsyncClient, provider: respx.Route, clock: FakeClock
) -> None:
    """Five failures open it, an open circuit sends nothing, and two probes close it."""
    provider.respond(503)
    for _ in range(5):
        assert await problem(client) == (502, "provider-unavailable")
    refused = await client.get(EUROS)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "60")
    assert refused.json()["type"] == "/problems/circuit-breaker-open"
    assert refused.json()["breaker"] == "payment"
    assert provider.call_count == 5

    clock.advance(60)
    provider.respond(json=EURO)
    for _ in range(2):
        assert (await client.get(EUROS)).json() == EURO
    health = (await client.get("/health/circuit-breakers")).json()
    assert (health["status"], health["breakers"]["payment"]["state"]) == ("healthy", "closed")


async def test_unknown_currencies_never_open_the_circuit(
    client: httpx.AsyncClient, provider: respx.Route
) -> None:
    """One client's mistakes must not take the service away from others."""
    provider.respond(404, json=UNKNOWN)
    for _ in range(10):
        assert await problem(client) == (404, "unknown-currency")
    provider.respond(json=EURO)
    assert (await client.get(EUROS)).status_code == 200


async def test_without_a_provider_the_route_says_so() -> None:
    """The application starts without one, and the route responds with a problem."""
    app = create_app(Settings(environment="test"))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
            assert await problem(client) == (503, "provider-not-configured")


async def test_openapi_lists_the_problems_of_the_route(client: httpx.AsyncClient) -> None:
    """Every status that a client may get is documented with its media type."""
    operation = (await client.get("/openapi.json")).json()["paths"][
        "/api/v1/exchange-rates/{currency}"
    ]["get"]
    for status in ("404", "422", "502", "503", "504"):
        assert "application/problem+json" in operation["responses"][status]["content"]


async def test_each_problem_of_the_route_is_explained(client: httpx.AsyncClient) -> None:
    """The `type` of each problem leads to a page that explains it."""
    for slug in (
        "provider-unavailable",
        "provider-timeout",
        "provider-connections-busy",
        "provider-not-configured",
        "unknown-currency",
    ):
        assert (await client.get(f"/problems/{slug}")).status_code == 200


async def test_problems_of_the_domain_have_pages(client: httpx.AsyncClient) -> None:
    """They are explained like the service's own problems."""
    assert (await client.get("/problems/unknown-currency")).status_code == 200
