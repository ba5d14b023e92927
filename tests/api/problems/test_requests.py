"""Bad requests become problems that do not repeat what the client sent."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from example_service.core.settings import Settings
from example_service.core.settings.model import HTTPSettings
from example_service.main import create_app
from tests.api.problems.failing_app import SECRET, problem_of
from tests.application import Serve


async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient) -> None:
    """The instance is the path without the query, which may contain secrets."""
    response = await client.get(f"/nowhere?token={SECRET}")
    assert problem_of(response, 404, "not-found")["instance"] == "/nowhere"


async def test_a_wrong_method_is_a_problem_with_every_method_of_the_path(
    client: httpx.AsyncClient,
) -> None:
    """`Allow` lists the methods of all routes with this path, not just the first."""
    response = await client.delete("/both")
    problem_of(response, 405, "method-not-allowed")
    assert response.headers["Allow"] == "GET, HEAD, PUT"


async def test_a_path_with_odd_characters_is_escaped_and_shortened(
    client: httpx.AsyncClient,
) -> None:
    """The instance is an ASCII URI reference of limited length."""
    response = await client.get("/%00%0d%0a<script>ä%22" + "x" * 5000)
    instance = problem_of(response, 404, "not-found")["instance"]
    assert instance.startswith("/%00%0d%0a%3Cscript%3E%C3%A4%22xxx")
    assert len(instance) == 1024


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"user": ' + SECRET.encode(),
        b"\xff\xfe",
        b'{"user": "\xe4"}',
        pytest.param(b"[" * 900, id="nested"),
    ],
)
async def test_bad_json_is_a_problem_without_the_body(
    client: httpx.AsyncClient, body: bytes
) -> None:
    """Bad syntax, encoding and nesting are one problem, which never repeats the body."""
    response = await client.post(
        "/login", content=body, headers={"Content-Type": "application/json"}
    )
    # With a deep stack, Python's parser accepts this nesting; the value then has the wrong type.
    if body.startswith(b"[["):
        assert response.status_code in {400, 422}
    else:
        problem_of(response, 400, "malformed-json")
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("body", "location", "kind"),
    [
        ({"user": 7, "password": SECRET}, ["body", "user"], "string_type"),
        ({"user": SECRET, "password": SECRET}, ["body", "user"], "string_too_long"),
        ({"user": "me", "password": [SECRET]}, ["body", "password"], "string_type"),
        ({"user": "unknown", "password": SECRET}, ["body", "user"], "value_error"),
        ({"user": "me", "password": SECRET, "age": 5}, ["body", "age"], "greater_than"),
        ({"user": "me"}, ["body", "password"], "missing"),
        (SECRET, ["body"], "model_attributes_type"),
    ],
)
async def test_a_bad_value_is_located_and_not_repeated(
    client: httpx.AsyncClient, body: object, location: list[str], kind: str
) -> None:
    """A problem says where and what is wrong, without anything that was submitted."""
    response = await client.post("/login", json=body)
    (error,) = problem_of(response, 422, "validation-failed")["errors"]
    assert error["location"] == location
    assert error["type"] == kind
    assert set(error) == {"location", "message", "type"}
    assert SECRET not in response.text


async def test_an_error_caused_by_a_bad_value_is_not_taken_for_bad_json(
    app: FastAPI, serve: Serve
) -> None:
    """Only a body that the framework could not read counts as malformed JSON."""

    @app.get("/refuses")
    async def refuses() -> None:
        raise HTTPException(400, "Not on a Monday.") from ValueError(SECRET)

    body = problem_of(await (await serve(app)).get("/refuses"), 400, "http-400")
    assert body["detail"] == "Not on a Monday."


async def test_an_unknown_member_is_not_named(client: httpx.AsyncClient) -> None:
    """The name comes from the client and may be a secret, just like a value."""
    name = "\x00\x1b[31m\u2028\u202e" + "x" * 500
    body = json.dumps({"user": "me", "password": SECRET, name: SECRET})
    response = await client.post(
        "/login", content=body, headers={"Content-Type": "application/json"}
    )
    (error,) = problem_of(response, 422, "validation-failed")["errors"]
    assert error["location"] == ["body"]
    assert response.text.isascii()
    assert response.text.isprintable()
    assert SECRET not in response.text


async def test_errors_are_limited_in_number(client: httpx.AsyncClient) -> None:
    """Many mistakes in a request do not make the response long."""
    body = dict.fromkeys((f"n{i}" for i in range(50)), 1)
    errors = problem_of(await client.post("/login", json=body), 422, "validation-failed")["errors"]
    assert len(errors) == 20


async def test_a_bad_query_parameter_is_a_problem(client: httpx.AsyncClient) -> None:
    """Parameters are validated and reported like bodies."""
    response = await client.get("/numbers", params={"number": SECRET})
    (error,) = problem_of(response, 422, "validation-failed")["errors"]
    assert error["location"] == ["query", "number"]
    assert SECRET not in response.text


async def test_a_body_of_another_type_is_a_problem(client: httpx.AsyncClient) -> None:
    """JSON without a JSON content type is refused."""
    response = await client.post("/login", content=b"{}", headers={"Content-Type": "text/plain"})
    problem_of(response, 422, "validation-failed")


async def test_a_body_declared_too_large_is_refused_unread(client: httpx.AsyncClient) -> None:
    """Its declared length is enough, and the connection is closed."""
    response = await client.post("/login", content=b"x" * 1001)
    problem_of(response, 413, "body-too-large")
    assert response.headers["Connection"] == "close"


async def test_a_body_that_grows_too_large_is_refused(client: httpx.AsyncClient) -> None:
    """Without a declared length, the bytes are counted as they arrive."""

    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 400

    response = await client.post("/login", content=chunks())
    problem_of(response, 413, "body-too-large")


async def test_a_declared_body_above_the_limit_of_a_route_is_a_problem(
    app: FastAPI, serve: Serve
) -> None:
    """FastAPI's own plain-text refusal never reaches the client."""

    @app.post("/tiny", max_body_size=2)  # type: ignore[call-arg, unused-ignore]
    async def tiny() -> str:
        return "done"

    response = await (await serve(app)).post("/tiny", content=b"four")
    problem_of(response, 413, "body-too-large")


@pytest.mark.parametrize("host", ["evil.test", "evil.test/", "", "service.test.evil.test"])
async def test_a_foreign_host_is_a_problem(serve: Serve, host: str) -> None:
    """The plain-text refusal of Starlette's middleware never reaches the client."""
    hosts = HTTPSettings(allowed_hosts=["service.test"])
    client = await serve(create_app(Settings(environment="test", http=hosts)))
    response = await client.get("/problems", headers={"Host": host})
    problem_of(response, 400, "invalid-host")
    assert (await client.get("/problems")).status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/startup", "/metrics"])
async def test_monitoring_is_answered_for_any_host(serve: Serve, path: str) -> None:
    """Probes and scrapers use an instance's address, which no list can foresee."""
    hosts = HTTPSettings(allowed_hosts=["service.test"])
    client = await serve(create_app(Settings(environment="test", http=hosts)))
    assert (await client.get(path, headers={"Host": "10.1.2.3:8000"})).status_code == 200


@pytest.mark.parametrize("path", ["/healthy", "/api/health/live", "//metrics"])
async def test_only_monitoring_is_exempt_from_the_host_check(serve: Serve, path: str) -> None:
    """A path that merely resembles a monitoring path is refused like any other."""
    hosts = HTTPSettings(allowed_hosts=["service.test"])
    client = await serve(create_app(Settings(environment="test", http=hosts)))
    response = await client.get(f"http://10.1.2.3{path}")
    problem_of(response, 400, "invalid-host")


async def test_a_refused_preflight_is_a_problem_that_says_why(serve: Serve) -> None:
    """The refusal of Starlette's middleware becomes a problem and keeps its headers."""
    cors = HTTPSettings(cors_origins=["https://app.test"])
    client = await serve(create_app(Settings(environment="test", http=cors)))
    response = await client.options(
        "/health/live",
        headers={"Origin": "https://evil.test", "Access-Control-Request-Method": "TRACE"},
    )
    assert problem_of(response, 400, "cors-refused")["detail"] == "Not allowed: origin, method."
    assert "Access-Control-Allow-Methods" in response.headers
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_page_can_read_problems_of_the_outer_middleware(app: FastAPI, serve: Serve) -> None:
    """Even a 500 has CORS headers for an allowed origin."""
    cors = HTTPSettings(cors_origins=["https://app.test"])
    app = create_app(Settings(environment="test", http=cors))

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError(SECRET)

    response = await (await serve(app)).get("/fails", headers={"Origin": "https://app.test"})
    problem_of(response, 500, "internal-error")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.test"
