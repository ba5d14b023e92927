"""Breakers can be administered only with a token, and each use is logged."""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from example_service.api.routers.admin import MAX_MODE_SECONDS
from example_service.core.settings import Settings
from example_service.core.settings.model import AdminSettings
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitOpenError,
    circuit_breaker_registry,
)
from example_service.main import create_app
from tests.application import LogLines, Serve

TOKEN = "a-token-of-more-than-sixteen"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of a service with administration enabled."""
    admin = AdminSettings(token=SecretStr(TOKEN))
    return await serve(create_app(Settings(environment="test", admin=admin)))


@pytest.fixture
async def breaker() -> CircuitBreaker:
    """An open breaker."""
    return await opened("shop")


async def opened(name: str) -> CircuitBreaker:
    """Create a breaker and open its circuit."""
    breaker = CircuitBreaker(name, failure_threshold=1)

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await breaker.call(fail)
    assert breaker.is_open
    return breaker


def reset_path(name: str) -> str:
    """The path that resets a breaker."""
    return f"/admin/circuit-breakers/{name}/reset"


MODES = [("force-open", "forced_open"), ("disable", "disabled"), ("shadow", "shadow")]


def mode_path(name: str, order: str) -> str:
    """The path that sets a mode."""
    return f"/admin/circuit-breakers/{name}/{order}"


def logged(log_lines: LogLines) -> dict[str, Any]:
    """The one line that the administration has logged since the last look."""
    (line,) = [line for line in log_lines() if line["logger"] == "example_service.admin"]
    return line


async def test_without_a_token_there_is_no_administration(
    serve: Serve, breaker: CircuitBreaker
) -> None:
    """Without a configured token the paths do not exist, whatever is sent."""
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
    """The response names the scheme, and nothing changes."""
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
    """The response says which worker did it; the log says who asked and why."""
    response = await client.post(
        reset_path(breaker.name),
        headers={"Authorization": f"{scheme} {TOKEN}", "X-Request-ID": "of-the-operator"},
        json={"reason": "The provider is back."},
    )
    assert response.status_code == 200
    assert response.json() == {
        "breaker": "shop",
        "state": "closed",
        "mode": None,
        "reason": "The provider is back.",
        "until": None,
        "client": "192.0.2.1",
        "workers": [os.getpid()],
    }
    assert breaker.is_closed
    line = logged(log_lines)
    assert line["level"] == "warning"
    assert line["breaker"] == "shop"
    assert line["reason"] == "The provider is back."
    assert line["client"] == "192.0.2.1"
    assert line["request_id"] == "of-the-operator"


async def test_a_reset_needs_no_reason(client: httpx.AsyncClient, breaker: CircuitBreaker) -> None:
    """During an outage, an operator should have less to type."""
    response = await client.post(reset_path(breaker.name), headers=AUTHORISED)
    assert response.status_code == 200
    assert breaker.is_closed


async def test_all_breakers_of_a_name_are_reset(client: httpx.AsyncClient) -> None:
    """Monitoring shows them as one, so they are reset as one."""
    breakers = [await opened("twin"), await opened("twin")]
    await client.post(reset_path("twin"), headers=AUTHORISED)
    assert [breaker.is_closed for breaker in breakers] == [True, True]


@pytest.mark.parametrize("name", ["a/b", "ä", "with space", "..", "reset"])
async def test_names_may_have_any_characters(client: httpx.AsyncClient, name: str) -> None:
    """A breaker's name may contain slashes, and the path still finds it."""
    breaker = await opened(name)
    escaped = "".join(f"%{byte:02X}" for byte in name.encode())
    response = await client.post(reset_path(escaped), headers=AUTHORISED)
    assert response.status_code == 200
    assert breaker.is_closed


async def test_an_unknown_breaker_is_a_problem_that_lists_nothing(
    client: httpx.AsyncClient, breaker: CircuitBreaker
) -> None:
    """The response does not reveal other names."""
    response = await client.post(reset_path("nobody"), headers=AUTHORISED)
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/unknown-circuit-breaker"
    assert breaker.name not in response.text
    assert "database" not in response.text
    assert "nobody" not in circuit_breaker_registry


@pytest.mark.parametrize(
    "body",
    [
        {"reason": ""},
        {"reason": " \u3000"},
        {"reason": 7},
        {"reason": "x" * 201},
        {"reason": "two\nlines"},
        {"reason": "\x1b[31mred"},
        {"reason": "\u202ereversed"},
        {"reason": "no\u00a0break"},
        {"reason": "another\u2028line"},
        {"reason": "fine", "more": 1},
        {"reason": "fine", "seconds": 1},
        [],
        "text",
    ],
)
async def test_a_bad_order_is_refused(
    client: httpx.AsyncClient, breaker: CircuitBreaker, body: object
) -> None:
    """A reason that is unfit for the log is refused."""
    response = await client.post(reset_path(breaker.name), headers=AUTHORISED, json=body)
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/validation-failed"
    assert breaker.is_open


@pytest.mark.skipif("\u1c89".isprintable(), reason="this Python knows the letter")
async def test_a_reason_that_only_a_newer_unicode_can_print_is_refused(
    client: httpx.AsyncClient, breaker: CircuitBreaker
) -> None:
    """The pattern in the OpenAPI document accepts it, but the breaker does not."""
    why = {"reason": "\u1c89"}
    response = await client.post(mode_path("shop", "shadow"), headers=AUTHORISED, json=why)
    assert response.status_code == 422
    assert "mode" not in breaker.get_metrics()


async def test_only_post_resets(client: httpx.AsyncClient, breaker: CircuitBreaker) -> None:
    """Following a link changes nothing."""
    response = await client.get(reset_path(breaker.name), headers=AUTHORISED)
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert breaker.is_open


@pytest.mark.parametrize("path_and_mode", MODES)
@pytest.mark.parametrize("seconds", [None, 1800, 1800.5])
async def test_a_mode_is_set(
    client: httpx.AsyncClient,
    breaker: CircuitBreaker,
    path_and_mode: tuple[str, str],
    seconds: float | None,
    log_lines: LogLines,
) -> None:
    """Response and log say who set it, why, until when, and in which worker."""
    order, mode = path_and_mode
    before = datetime.now(UTC)
    response = await client.post(
        mode_path("shop", order),
        headers={**AUTHORISED, "X-Request-ID": "of-the-operator"},
        json={"reason": "Umbau für einen Tag"} | ({} if seconds is None else {"seconds": seconds}),
    )
    assert response.status_code == 200
    report = response.json()
    shown = breaker.get_metrics()
    assert shown["mode"]["name"] == mode
    assert shown["mode"]["reason"] == "Umbau für einen Tag"
    assert (shown["mode"]["ends_in"] is None) is (seconds is None)
    if seconds is None:
        assert report["until"] is None
    else:
        until = datetime.fromisoformat(report["until"])
        assert before <= until - timedelta(seconds=seconds) <= datetime.now(UTC)
    assert report == {
        "breaker": "shop",
        "state": shown["state"],
        "mode": mode,
        "reason": "Umbau für einen Tag",
        "until": report["until"],
        "client": "192.0.2.1",
        "workers": [os.getpid()],
    }
    line = logged(log_lines)
    assert line["level"] == "warning"
    assert line["request_id"] == "of-the-operator"
    assert report.items() <= line.items()


async def test_the_modes_do_what_they_say(client: httpx.AsyncClient) -> None:
    """Forced open refuses, disabled admits, shadow only counts, and a reset ends each."""
    breaker = await opened("shop")

    async def order(name: str) -> None:
        path, why = mode_path("shop", name), {"reason": "a test"}
        response = await client.post(path, headers=AUTHORISED, json=why)
        assert response.status_code == 200

    await order("disable")
    assert await breaker.call(lambda: "through") == "through"
    await order("force-open")
    with pytest.raises(CircuitOpenError) as refused:
        await breaker.call(lambda: "through")
    assert refused.value.reason == "forced open by hand: a test"
    await order("reset")
    assert "mode" not in breaker.get_metrics()
    await order("shadow")
    with pytest.raises(ZeroDivisionError):
        await breaker.call(lambda: 1 // 0)
    assert await breaker.call(lambda: "through") == "through"
    assert breaker.get_metrics()["mode"]["would_have_rejected"] == 1


@pytest.mark.parametrize(("order", "mode"), MODES)
async def test_a_mode_is_set_on_all_breakers_of_a_name(
    client: httpx.AsyncClient, order: str, mode: str
) -> None:
    """Monitoring shows them as one, so a mode applies to all of them."""
    twins = [CircuitBreaker("twin"), CircuitBreaker("twin")]
    await client.post(mode_path("twin", order), headers=AUTHORISED, json={"reason": "both"})
    assert [twin.get_metrics()["mode"]["name"] for twin in twins] == [mode, mode]


@pytest.mark.parametrize("order", [order for order, _ in MODES])
@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"seconds": 1},
        {"reason": ""},
        {"reason": "  "},
        {"reason": None},
        {"reason": 7},
        {"reason": "x" * 201},
        {"reason": "two\nlines"},
        {"reason": "fine", "seconds": 0},
        {"reason": "fine", "seconds": -1},
        {"reason": "fine", "seconds": "60"},
        {"reason": "fine", "seconds": True},
        {"reason": "fine", "seconds": MAX_MODE_SECONDS + 1},
        {"reason": "fine", "until": "noon"},
        [],
    ],
)
async def test_a_bad_order_sets_no_mode(
    client: httpx.AsyncClient, breaker: CircuitBreaker, order: str, body: object
) -> None:
    """A reason is required, a duration is in range, and unknown members are refused."""
    response = await client.post(
        mode_path("shop", order),
        headers={**AUTHORISED, "Content-Type": "application/json"},
        content=json.dumps(body),
    )
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/validation-failed"
    assert "mode" not in breaker.get_metrics()


@pytest.mark.parametrize("order", [order for order, _ in MODES])
async def test_modes_need_the_token_and_a_breaker(
    client: httpx.AsyncClient, breaker: CircuitBreaker, order: str, log_lines: LogLines
) -> None:
    """No token is 401, no breaker 404; nothing is set and no name revealed."""
    why = {"reason": "to see"}
    response = await client.post(mode_path("shop", order), json=why)
    assert (response.status_code, response.json()["type"]) == (401, "/problems/unauthorized")
    response = await client.post(mode_path("nobody", order), headers=AUTHORISED, json=why)
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/unknown-circuit-breaker"
    assert "shop" not in response.text
    assert "mode" not in breaker.get_metrics()
    assert "nobody" not in circuit_breaker_registry
    assert not [line for line in log_lines() if line["logger"] == "example_service.admin"]


async def test_a_name_may_end_like_a_path(client: httpx.AsyncClient) -> None:
    """Only the last segment is the order; a name may contain one, too."""
    breaker = CircuitBreaker("a/force-open")
    response = await client.post(
        mode_path("a/force-open", "disable"), headers=AUTHORISED, json={"reason": "odd"}
    )
    assert response.json()["breaker"] == "a/force-open"
    assert breaker.get_metrics()["mode"]["name"] == "disabled"


async def test_breakers_are_listed_with_their_modes(
    client: httpx.AsyncClient, breaker: CircuitBreaker, log_lines: LogLines
) -> None:
    """The list equals that of the health endpoint, and asking for it is logged."""
    breaker.shadow("to see")
    log_lines()
    response = await client.get("/admin/circuit-breakers", headers=AUTHORISED)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    assert (body["workers"], body["silent_workers"]) == ([os.getpid()], [])
    assert set(body["breakers"]) == {breaker.name for breaker in circuit_breaker_registry}
    assert body["breakers"]["shop"]["mode"]["name"] == "shadow"
    assert "mode" not in body["breakers"]["database"]
    line = logged(log_lines)
    assert (line["event"], line["client"]) == ("circuit breakers listed", "192.0.2.1")
    assert (await client.get("/admin/circuit-breakers")).status_code == 401
