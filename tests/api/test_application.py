"""How the application is assembled from its settings."""

import importlib
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

import example_service.main
from example_service.api.request.middleware import RequestMiddleware
from example_service.api.request.proxies import ProxiesMiddleware
from example_service.core.exceptions import SettingsError
from example_service.core.settings import Settings
from example_service.core.settings.breakers import CircuitBreakerSettings
from example_service.core.settings.model import HTTPSettings
from example_service.infra.database.database import database_breaker
from example_service.infra.resilience import circuit_breaker_registry
from example_service.main import create_app
from tests.application import LogLines, Serve


def paths(app: FastAPI) -> set[str]:
    """The paths that the application documents."""
    return set(app.openapi()["paths"])


async def test_settings_reach_the_breakers(serve: Serve) -> None:
    """`CIRCUIT_BREAKERS__DATABASE__…` applies, and monitoring shows the breaker at once."""
    breakers = {"database": CircuitBreakerSettings(failure_threshold=2, recovery_timeout=7.5)}
    client = await serve(create_app(Settings(environment="test", circuit_breakers=breakers)))
    breaker = database_breaker()
    assert (breaker.failure_threshold, breaker.recovery_timeout) == (2, 7.5)
    assert "database" in (await client.get("/health/circuit-breakers")).json()["breakers"]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read unless settings are passed in."""
    monkeypatch.setenv("ENVIRONMENT", "test")
    monkeypatch.setenv("CIRCUIT_BREAKERS__DATABASE__FAILURE_THRESHOLD", "4")
    create_app()
    assert circuit_breaker_registry.get_or_create("database").failure_threshold == 4


def test_unusable_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application is not created with invalid settings."""
    monkeypatch.setenv("LIMITS__MAX_BODY_BYTES", "lots")
    with pytest.raises(SettingsError, match="LIMITS__MAX_BODY_BYTES"):
        create_app()


def test_the_application_for_servers_is_made_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`example_service.main:app` works, and importing its module reads no settings."""
    monkeypatch.setenv("LIMITS__MAX_BODY_BYTES", "lots")
    module: Any = importlib.reload(example_service.main)
    with pytest.raises(SettingsError):
        _ = module.app
    monkeypatch.setenv("ENVIRONMENT", "test")
    monkeypatch.delenv("LIMITS__MAX_BODY_BYTES")
    assert isinstance(module.app, FastAPI)
    assert module.app is module.app
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = module.other
    del module.app


@pytest.mark.parametrize(
    ("trusted_proxies", "outermost"), [([], RequestMiddleware), (["10.0.0.0/8"], ProxiesMiddleware)]
)
def test_no_other_middleware_is_around_that_of_the_service(
    trusted_proxies: list[str], outermost: type
) -> None:
    """FastAPI's own would have nothing to do for any request."""
    http = HTTPSettings(trusted_proxies=trusted_proxies)

    app = create_app(Settings(environment="test", http=http))

    assert type(app.build_middleware_stack()) is outermost


async def test_middleware_that_is_added_may_fail() -> None:
    """It is around that of the service, and the response is the same problem."""

    async def fail(*_: object) -> None:
        raise RuntimeError("secret")

    app = create_app(Settings(environment="test"))
    app.add_middleware(lambda _: fail)

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        response = await client.get("/health/live")

    assert response.status_code == 500
    assert response.json()["type"] == "/problems/internal-error"
    assert "secret" not in response.text


async def test_the_client_for_outgoing_calls_lives_as_long_as_the_application() -> None:
    """The client is created at startup and closed at shutdown."""
    app = create_app(Settings(environment="test"))
    async with app.router.lifespan_context(app):
        client = app.state.services.http_client
        assert not client.is_closed
    assert client.is_closed


async def test_a_slash_too_many_is_not_redirected(serve: Serve) -> None:
    """A redirect would point to whatever host the request claims."""
    client = await serve(create_app(Settings(environment="test")))
    response = await client.get("/health/live/", headers={"Host": "evil.test"})
    assert response.status_code == 404
    assert "Location" not in response.headers


@pytest.mark.parametrize("root_path", ["", "/shop"])
async def test_the_server_says_which_methods_it_has(serve: Serve, root_path: str) -> None:
    """`OPTIONS *` asks about the server and not about a path (RFC 9110, section 9.3.7)."""
    app = create_app(Settings(environment="test", http=HTTPSettings(root_path=root_path)))
    await serve(app)
    sent: list[Message] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "OPTIONS",
        "path": "*",
        "raw_path": b"*",
        "query_string": b"",
        "headers": [],
    }

    async def nothing_to_receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, nothing_to_receive, send)

    assert sent[0]["status"] == 204
    assert b"OPTIONS" in dict(sent[0]["headers"])[b"allow"].split(b", ")


@pytest.mark.parametrize(
    "headers",
    [
        "content-type, idempotency-key, traceparent",
        "Tracestate,X-REQUEST-ID",
        "",
        "accept, ,tracestate,",
    ],
)
async def test_pages_of_allowed_origins_may_call(serve: Serve, headers: str) -> None:
    """They may send the headers that the service reads, and read those it returns."""
    cors = HTTPSettings(cors_origins=["https://app.test"])
    client = await serve(create_app(Settings(environment="test", http=cors)))
    preflight = await client.options(
        "/health/live",
        headers={
            "Origin": "https://app.test",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": headers,
        },
    )
    assert preflight.status_code == 200
    response = await client.get("/health/live", headers={"Origin": "https://app.test"})
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.test"
    exposed = response.headers["Access-Control-Expose-Headers"]
    assert exposed == "Location, Retry-After, WWW-Authenticate, X-Request-ID, traceparent"
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("setting", ["https://app.test", "https://APP.test:443"])
@pytest.mark.parametrize("origin", ["https://app.test", "https://app.test:443", "https://App.test"])
async def test_an_origin_equals_itself_with_its_default_port(
    serve: Serve, setting: str, origin: str
) -> None:
    """The origin is repeated as it was sent, because the client compares the text."""
    cors = HTTPSettings(cors_origins=[setting])
    client = await serve(create_app(Settings(environment="test", http=cors)))

    response = await client.get("/health/live", headers={"Origin": origin})

    assert response.headers["Access-Control-Allow-Origin"] == origin


async def test_without_origins_there_is_no_cors(serve: Serve) -> None:
    """CORS is off by default."""
    client = await serve(create_app(Settings(environment="test")))
    response = await client.get("/health/live", headers={"Origin": "https://app.test"})
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_every_request_is_logged_once_under_its_route(
    serve: Serve, log_lines: LogLines
) -> None:
    """Each request logs one line with the route template and the IDs."""
    client = await serve(create_app(Settings(environment="test")))
    log_lines()
    sent = ("/health/live", "/api/v1/exchange-rates/eur", "/problems/x", "/nowhere", "/docs")
    answers = [await client.get(path) for path in sent]
    lines = log_lines()
    assert [line["route"] for line in lines] == [
        "/health/live",
        "/api/v1/exchange-rates/{currency}",
        "/problems/{slug}",
        "unmatched",
        "/docs",
    ]
    for line, answer in zip(lines, answers, strict=True):
        assert line["request_id"] == answer.headers["X-Request-ID"]
        assert line["trace_id"] == answer.headers["traceparent"].split("-")[1]
        assert line["status"] == answer.status_code
