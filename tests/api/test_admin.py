"""Administration of breakers: there only with a token, and each use of it is told to the log."""

import os

import httpx
import pytest
from pydantic import SecretStr

from example_service.core.settings import AdminSettings, Settings
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.main import create_app
from tests.api.conftest import LogLines, Serve

TOKEN = "a-token-of-more-than-sixteen"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of a service with an administration."""
    admin = AdminSettings(token=SecretStr(TOKEN))
    return await serve(create_app(Settings(environment="test", admin=admin)))


@pytest.fixture
async def breaker() -> CircuitBreaker:
    """A breaker that is open."""
    return await opened("shop")


async def opened(name: str) -> CircuitBreaker:
    """Make a breaker and open its circuit."""
    breaker = CircuitBreaker(name, failure_threshold=1)

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await breaker.call(fail)
    assert breaker.is_open
    return breaker


def reset_path(name: str) -> str:
    """Where a breaker is reset."""
    return f"/admin/circuit-breakers/{name}/reset"


async def test_without_a_token_there_is_no_administration(
    serve: Serve, breaker: CircuitBreaker
) -> None:
    """The answer is that of any path that does not exist, whatever is sent."""
    client = await serve(create_app(Settings(environment="test")))
    nowhere = (await client.post("/admin/nowhere")).json()
    for headers in ({}, AUTHORISED, {"Authorization": "Bearer "}):
        response = await client.post(reset_path(breaker.name), headers=headers)
        assert response.status_code == 404
        assert response.json()["detail"] == nowhere["detail"]
        assert response.json()["type"] == nowhere["type"]
    assert "/admin" not in (await client.get("/openapi.json")).text
    assert breaker.is_open


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", TOKEN)],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Bearer {TOKEN.upper()}")],
        [("Authorization", b"Bearer \xe4\xff\x00")],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
    ],
)
async def test_a_wrong_token_is_refused(
    client: httpx.AsyncClient,
    breaker: CircuitBreaker,
    headers: list[tuple[str, str | bytes]],
    log_lines: LogLines,
) -> None:
    """The challenge says what is wanted, and nothing happens."""
    raw = [(n.encode(), v if isinstance(v, bytes) else v.encode()) for n, v in headers]
    response = await client.post(reset_path(breaker.name), headers=raw)
    assert response.status_code == 401
    assert response.json()["type"] == "/problems/unauthorized"
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="admin"'
    assert breaker.is_open
    assert TOKEN not in str(log_lines())


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_breaker_is_reset(
    client: httpx.AsyncClient, breaker: CircuitBreaker, scheme: str, log_lines: LogLines
) -> None:
    """The answer says which worker did it, the log who asked and why."""
    response = await client.post(
        reset_path(breaker.name),
        headers={"Authorization": f"{scheme} {TOKEN}", "X-Request-ID": "of-the-operator"},
        json={"reason": "The provider is back."},
    )
    assert response.status_code == 200
    assert response.json() == {"breaker": "shop", "state": "closed", "worker": os.getpid()}
    assert breaker.is_closed
    (line,) = [line for line in log_lines() if line["logger"] == "example_service.admin"]
    assert line["level"] == "warning"
    assert line["breaker"] == "shop"
    assert line["reason"] == "The provider is back."
    assert line["client"] == "192.0.2.1"
    assert line["request_id"] == "of-the-operator"


async def test_a_reason_is_not_needed(client: httpx.AsyncClient, breaker: CircuitBreaker) -> None:
    """In an outage fewer things to type are better."""
    response = await client.post(reset_path(breaker.name), headers=AUTHORISED)
    assert response.status_code == 200
    assert breaker.is_closed


async def test_all_breakers_of_a_name_are_reset(client: httpx.AsyncClient) -> None:
    """Monitoring shows them as one, so they are treated as one."""
    breakers = [await opened("twin"), await opened("twin")]
    await client.post(reset_path("twin"), headers=AUTHORISED)
    assert [breaker.is_closed for breaker in breakers] == [True, True]


@pytest.mark.parametrize("name", ["a/b", "ä", "with space", "..", "reset"])
async def test_names_may_have_any_characters(client: httpx.AsyncClient, name: str) -> None:
    """Breakers are named by developers, who may like slashes."""
    breaker = await opened(name)
    escaped = "".join(f"%{byte:02X}" for byte in name.encode())
    response = await client.post(reset_path(escaped), headers=AUTHORISED)
    assert response.status_code == 200
    assert breaker.is_closed


async def test_an_unknown_breaker_is_a_problem_that_lists_nothing(
    client: httpx.AsyncClient, breaker: CircuitBreaker
) -> None:
    """Names of others are not given away."""
    response = await client.post(reset_path("nobody"), headers=AUTHORISED)
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/unknown-circuit-breaker"
    assert breaker.name not in response.text
    assert "payment" not in response.text
    assert "nobody" not in circuit_breaker_registry


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": 7},
        {"reason": "x" * 201},
        {"reason": "two\nlines"},
        {"reason": "\x1b[31mred"},
        {"reason": "\u202ereversed"},
        {"reason": "fine", "more": 1},
        [],
        "text",
    ],
)
async def test_a_bad_order_is_refused(
    client: httpx.AsyncClient, breaker: CircuitBreaker, body: object
) -> None:
    """What goes into the log has to be fit for it."""
    response = await client.post(reset_path(breaker.name), headers=AUTHORISED, json=body)
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/validation-failed"
    assert breaker.is_open


async def test_only_post_resets(client: httpx.AsyncClient, breaker: CircuitBreaker) -> None:
    """A link that is followed does nothing."""
    response = await client.get(reset_path(breaker.name), headers=AUTHORISED)
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert breaker.is_open
