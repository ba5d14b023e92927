"""Whatever goes wrong over HTTP, the answer is a problem that tells the right things only."""

import asyncio
import json
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from example_service.api.problems.answers import LONGEST_REASON, UNKNOWN_WAIT_SECONDS
from example_service.core.exceptions import CircuitBreakerOpenException
from example_service.core.settings import Settings
from example_service.core.settings.model import HTTPSettings, LimitSettings
from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from example_service.main import create_app
from tests.application import LogLines, Serve

SECRET = "hunter2-und-mehr"


class Login(BaseModel):
    """A body with something in it that must not come back."""

    model_config = ConfigDict(extra="forbid")

    user: Annotated[str, Field(max_length=8)]
    password: SecretStr
    age: Annotated[int, Field(gt=17)] = 18

    @field_validator("user")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "unknown":
            raise ValueError(f"{value} with {SECRET}")
        return value


@pytest.fixture
def app() -> FastAPI:
    """The service, with routes that go wrong."""
    app = create_app(Settings(environment="test", limits=LimitSettings(max_body_bytes=1000)))

    @app.post("/login")
    async def login(login: Login) -> str:
        return login.user

    @app.get("/numbers")
    async def numbers(number: Annotated[int, Query(lt=10)]) -> int:
        return number

    @app.get("/both")
    async def read_both() -> str:
        return "read"

    @app.put("/both")
    async def write_both() -> str:
        return "written"

    @app.get("/raises/{status}")
    async def raises(status: int) -> None:
        raise HTTPException(status, headers={"X-Reason": "because"})

    @app.get("/plain")
    async def plain() -> PlainTextResponse:
        return PlainTextResponse("Not on a Monday.", 409, headers={"X-Reason": "because"})

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError(SECRET)

    return app


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(app)


def problem_of(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The body of an answer, which is a problem in every respect."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    body: dict[str, Any] = response.json()
    assert list(body)[:6] == ["type", "title", "status", "detail", "instance", "request_id"]
    assert body["type"] == f"/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient) -> None:
    """The instance is the path of the request, without the query that may hold secrets."""
    response = await client.get(f"/nowhere?token={SECRET}")
    assert problem_of(response, 404, "not-found")["instance"] == "/nowhere"


async def test_a_wrong_method_is_a_problem_with_every_method_of_the_path(
    client: httpx.AsyncClient,
) -> None:
    """`Allow` lists the methods of all routes with the path, not of the first one."""
    response = await client.delete("/both")
    problem_of(response, 405, "method-not-allowed")
    assert response.headers["Allow"] == "GET, HEAD, PUT"


async def test_a_path_with_odd_characters_is_escaped_and_cut(client: httpx.AsyncClient) -> None:
    """The instance stays an ASCII URI reference of bounded length."""
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
    """Syntax, encoding and nesting are one kind of problem, and nothing of the body comes back."""
    response = await client.post(
        "/login", content=body, headers={"Content-Type": "application/json"}
    )
    # Python's parser takes deep nesting where its stack is deep enough; then it is the wrong type.
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
async def test_a_bad_value_is_named_and_not_repeated(
    client: httpx.AsyncClient, body: object, location: list[str], kind: str
) -> None:
    """A problem says where and what is wrong, and holds nothing that was submitted."""
    response = await client.post("/login", json=body)
    (error,) = problem_of(response, 422, "validation-failed")["errors"]
    assert error["location"] == location
    assert error["type"] == kind
    assert set(error) == {"location", "message", "type"}
    assert SECRET not in response.text


async def test_a_refusal_for_a_bad_value_is_not_taken_for_bad_json(
    app: FastAPI, serve: Serve
) -> None:
    """Only where the framework could not read a body is the body to blame."""

    @app.get("/refuses")
    async def refuses() -> None:
        raise HTTPException(400, "Not on a Monday.") from ValueError(SECRET)

    body = problem_of(await (await serve(app)).get("/refuses"), 400, "http-400")
    assert body["detail"] == "Not on a Monday."


async def test_an_unknown_member_is_not_named(client: httpx.AsyncClient) -> None:
    """A name that the client made up can be a secret as well as a value can."""
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
    """A client cannot make the answer long by making many mistakes."""
    body = dict.fromkeys((f"n{i}" for i in range(50)), 1)
    errors = problem_of(await client.post("/login", json=body), 422, "validation-failed")["errors"]
    assert len(errors) == 20


async def test_a_bad_query_parameter_is_a_problem(client: httpx.AsyncClient) -> None:
    """Parameters are treated like bodies."""
    response = await client.get("/numbers", params={"number": SECRET})
    (error,) = problem_of(response, 422, "validation-failed")["errors"]
    assert error["location"] == ["query", "number"]
    assert SECRET not in response.text


async def test_a_body_of_another_type_is_a_problem(client: httpx.AsyncClient) -> None:
    """JSON that is not declared as such is not taken."""
    response = await client.post("/login", content=b"{}", headers={"Content-Type": "text/plain"})
    problem_of(response, 422, "validation-failed")


async def test_a_body_declared_too_large_is_refused_unread(client: httpx.AsyncClient) -> None:
    """The length alone is enough, and the connection is given up."""
    response = await client.post("/login", content=b"x" * 1001)
    problem_of(response, 413, "body-too-large")
    assert response.headers["Connection"] == "close"


async def test_a_body_that_grows_too_large_is_refused(client: httpx.AsyncClient) -> None:
    """Without a declared length the bytes are counted as they come."""

    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 400

    response = await client.post("/login", content=chunks())
    problem_of(response, 413, "body-too-large")


@pytest.mark.parametrize(
    ("status", "slug", "title"),
    [
        (401, "unauthorized", "Unauthorized"),
        (404, "not-found", "Not found"),
        (409, "http-409", "Conflict"),
        (418, "http-418", "I'm a Teapot"),
        (499, "http-499", "Client error"),
        (500, "internal-error", "Internal error"),
        (503, "http-503", "Service Unavailable"),
        (599, "http-599", "Server error"),
    ],
)
async def test_any_status_that_is_raised_is_a_problem(
    client: httpx.AsyncClient, status: int, slug: str, title: str
) -> None:
    """A status without a kind of its own has one by its number, and headers stay."""
    response = await client.get(f"/raises/{status}")
    assert problem_of(response, status, slug)["title"].lower() == title.lower()
    assert response.headers["X-Reason"] == "because"
    explained = await client.get(f"/problems/{slug}")
    assert explained.status_code == 200
    assert explained.json()["status"] == status


@pytest.mark.parametrize("status", [204, 304, 307])
async def test_what_is_no_error_is_no_problem(client: httpx.AsyncClient, status: int) -> None:
    """A redirect or an empty answer that was raised keeps its headers and has no body."""
    response = await client.get(f"/raises/{status}")
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["X-Reason"] == "because"


async def test_details_that_are_no_text_are_members_of_their_own(
    app: FastAPI, serve: Serve
) -> None:
    """`detail` is always text."""

    @app.get("/complicated")
    async def complicated() -> None:
        raise HTTPException(409, {"current": 3, "type": "not ours"})

    body = problem_of(await (await serve(app)).get("/complicated"), 409, "http-409")
    assert body["details"] == {"current": 3, "type": "not ours"}


async def test_an_error_in_plain_text_becomes_a_problem(client: httpx.AsyncClient) -> None:
    """Whoever answers an error in plain text, its words are the detail and its headers stay."""
    response = await client.get("/plain")
    assert problem_of(response, 409, "http-409")["detail"] == "Not on a Monday."
    assert response.headers["X-Reason"] == "because"
    assert len(response.headers.get_list("Content-Type")) == 1


async def test_a_declared_body_above_the_limit_of_a_route_is_a_problem(
    app: FastAPI, serve: Serve
) -> None:
    """FastAPI's own limit for a route refuses in plain text, which nobody gets to see."""

    @app.post("/tiny", max_body_size=2)  # type: ignore[call-arg, unused-ignore]
    async def tiny() -> str:
        return "done"

    response = await (await serve(app)).post("/tiny", content=b"four")
    problem_of(response, 413, "body-too-large")


@pytest.mark.parametrize("host", ["evil.test", "evil.test/", "", "service.test.evil.test"])
async def test_a_foreign_host_is_a_problem(serve: Serve, host: str) -> None:
    """The refusal of Starlette's own middleware does not get through as plain text."""
    hosts = HTTPSettings(allowed_hosts=["service.test"])
    client = await serve(create_app(Settings(environment="test", http=hosts)))
    response = await client.get("/problems", headers={"Host": host})
    problem_of(response, 400, "invalid-host")
    assert (await client.get("/problems")).status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/startup", "/metrics"])
async def test_monitoring_is_answered_for_any_host(serve: Serve, path: str) -> None:
    """Probes and scrapers come by the address of the instance, which no list can foresee."""
    hosts = HTTPSettings(allowed_hosts=["service.test"])
    client = await serve(create_app(Settings(environment="test", http=hosts)))
    assert (await client.get(path, headers={"Host": "10.1.2.3:8000"})).status_code == 200


@pytest.mark.parametrize("path", ["/healthy", "/api/health/live", "//metrics"])
async def test_only_monitoring_is_exempt_from_the_host_check(serve: Serve, path: str) -> None:
    """A path that merely resembles one of them is refused like any other."""
    hosts = HTTPSettings(allowed_hosts=["service.test"])
    client = await serve(create_app(Settings(environment="test", http=hosts)))
    response = await client.get(f"http://10.1.2.3{path}")
    problem_of(response, 400, "invalid-host")


async def test_a_refused_preflight_is_a_problem_that_says_why(serve: Serve) -> None:
    """The refusal of Starlette's own middleware becomes a problem, with its headers."""
    cors = HTTPSettings(cors_origins=["https://app.test"])
    client = await serve(create_app(Settings(environment="test", http=cors)))
    response = await client.options(
        "/health/live",
        headers={"Origin": "https://evil.test", "Access-Control-Request-Method": "TRACE"},
    )
    assert problem_of(response, 400, "cors-refused")["detail"] == "Not allowed: origin, method."
    assert "Access-Control-Allow-Methods" in response.headers
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_page_can_read_problems_made_around_the_application(
    app: FastAPI, serve: Serve
) -> None:
    """An allowed origin gets CORS headers on a 500 as on any answer."""
    cors = HTTPSettings(cors_origins=["https://app.test"])
    app = create_app(Settings(environment="test", http=cors))

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError(SECRET)

    response = await (await serve(app)).get("/fails", headers={"Origin": "https://app.test"})
    problem_of(response, 500, "internal-error")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.test"


async def test_an_unexpected_error_is_told_to_the_log_alone(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    """The client learns the request's id, the log has the traceback under it, once."""
    response = await client.get("/fails", headers={"X-Request-ID": "of-the-failure"})
    assert problem_of(response, 500, "internal-error")["request_id"] == "of-the-failure"
    assert SECRET not in response.text
    error, access = log_lines()
    assert error["level"] == "error"
    assert "RuntimeError" in error["exception"]
    assert error["request_id"] == access["request_id"] == "of-the-failure"
    assert error["trace_id"] == access["trace_id"]
    assert access["status"] == 500


class Refusing:
    """Routes behind an open circuit."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.breaker = CircuitBreaker(
            "shop", failure_threshold=1, recovery_timeout=20.0, clock=self.clock, registry=None
        )

    async def open(self) -> None:
        """Open the circuit."""

        async def fail() -> None:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await self.breaker.call(fail)

    def application(self) -> FastAPI:
        """The service with routes that use the breaker in different places."""
        app = create_app(Settings(environment="test"))
        breaker = self.breaker

        async def guarded() -> None:
            async with breaker:
                pass

        async def refused_dependency() -> None:
            await guarded()

        @app.get("/endpoint")
        async def endpoint() -> None:
            await guarded()

        @app.get("/dependency", dependencies=[Depends(refused_dependency)])
        async def dependency() -> None:
            pass

        @app.get("/thread")
        def thread() -> None:
            with breaker:
                pass

        @app.get("/group")
        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(guarded())
                tasks.create_task(guarded())

        @app.get("/cause")
        async def cause() -> None:
            try:
                await guarded()
            except CircuitOpenError as error:
                raise LookupError(SECRET) from error

        return app


@pytest.fixture
async def refusing() -> Refusing:
    """An open circuit."""
    refusing = Refusing()
    await refusing.open()
    return refusing


@pytest.mark.parametrize("path", ["/endpoint", "/dependency", "/thread", "/group", "/cause"])
async def test_an_open_circuit_is_a_problem_wherever_it_is_met(
    refusing: Refusing, serve: Serve, path: str, log_lines: LogLines
) -> None:
    """It names the breaker, its state and why, and when to come back; no traceback is logged."""
    client = await serve(refusing.application())
    refusing.clock.advance(0.75)
    response = await client.get(path)
    body = problem_of(response, 503, "circuit-breaker-open")
    assert (body["breaker"], body["state"], body["retry_after"]) == ("shop", "open", 19.25)
    assert body["reason"] == "1 failure in a row; last failures: ConnectionError"
    assert body["detail"] == "Circuit breaker 'shop' is open; the call was not made."
    assert response.headers["Retry-After"] == "20"
    assert SECRET not in response.text
    assert not [line for line in log_lines() if "exception" in line]


@pytest.mark.parametrize(
    ("waited", "header"),
    [(0.0, "20"), (0.25, "20"), (1.0, "19"), (18.5, "2"), (19.0, "1"), (19.9375, "1")],
)
async def test_retry_after_is_in_whole_seconds_rounded_up(
    refusing: Refusing, serve: Serve, waited: float, header: str
) -> None:
    """A client that obeys is not refused again, and never told to come back at once."""
    client = await serve(refusing.application())
    refusing.clock.advance(waited)
    assert (await client.get("/endpoint")).headers["Retry-After"] == header


@pytest.mark.parametrize(
    ("error", "header", "wait"),
    [
        (CircuitBreakerOpenException("a", retry_after=2.5, state="open"), "3", 2.5),
        (CircuitBreakerOpenException("a"), str(UNKNOWN_WAIT_SECONDS), None),
        (CircuitBreakerOpenException("a", retry_after=float("nan")), "30", None),
        (CircuitBreakerOpenException("a", retry_after=float("inf")), "30", None),
        (CircuitBreakerOpenException("a", retry_after=-5.0), "1", -5.0),
        (CircuitOpenError("in words of my own"), "30", None),
    ],
)
async def test_refusals_raised_by_hand_are_problems(
    serve: Serve, error: Exception, header: str, wait: float | None
) -> None:
    """What is not known is null in the body; the header is always a sensible number."""
    app = create_app(Settings(environment="test"))

    @app.get("/refused")
    async def refused() -> None:
        raise error

    response = await (await serve(app)).get("/refused")
    body = problem_of(response, 503, "circuit-breaker-open")
    assert body["retry_after"] == wait
    assert response.headers["Retry-After"] == header
    assert "own" not in body["detail"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, None),
        ('two\nlines, "quoted"\x1b[31m', 'two\nlines, "quoted"\x1b[31m'),
        ("half \ud83d", "half \ud83d"),
        ("x" * 10_000, "x" * LONGEST_REASON),
    ],
)
async def test_the_reason_of_a_refusal_is_escaped_and_bounded(
    serve: Serve, given: str | None, told: str | None
) -> None:
    """Whatever somebody gave as the reason, the body is JSON in ASCII, and short."""
    app = create_app(Settings(environment="test"))

    @app.get("/refused")
    async def refused() -> None:
        raise CircuitBreakerOpenException("a", reason=given)

    @app.get("/raised")
    async def raised() -> None:
        raise CircuitOpenError("a", "open", 1.0, given or "-")

    client = await serve(app)
    response = await client.get("/refused")
    assert problem_of(response, 503, "circuit-breaker-open")["reason"] == told
    assert response.content.isascii()
    assert b"\n" not in response.content
    response = await client.get("/raised")
    reason = problem_of(response, 503, "circuit-breaker-open")["reason"]
    assert reason == (given or "-")[:LONGEST_REASON]


async def test_a_circuit_forced_open_for_good_says_why(refusing: Refusing, serve: Serve) -> None:
    """Nobody can tell when to come back, so the header has a guess and the body none."""
    refusing.breaker.force_open("the provider asked for it")
    response = await (await serve(refusing.application())).get("/endpoint")
    body = problem_of(response, 503, "circuit-breaker-open")
    assert body["reason"] == "forced open by hand: the provider asked for it"
    assert body["retry_after"] is None
    assert response.headers["Retry-After"] == str(UNKNOWN_WAIT_SECONDS)


async def test_the_detail_of_a_refusal_can_be_chosen(serve: Serve) -> None:
    """The exception for HTTP says to the client what it was given."""
    app = create_app(Settings(environment="test"))

    @app.get("/refused")
    async def refused() -> None:
        raise CircuitBreakerOpenException("a", detail="Payments are paused.")

    body = (await (await serve(app)).get("/refused")).json()
    assert (body["detail"], body["breaker"], body["state"]) == ("Payments are paused.", "a", None)


async def test_a_full_half_open_circuit_says_so(refusing: Refusing, serve: Serve) -> None:
    """Excess probes may come back at once, which is after one second."""
    client = await serve(refusing.application())
    refusing.clock.advance(20.0)
    for _ in range(3):
        refusing.breaker.acquire()
    response = await client.get("/endpoint")
    body = problem_of(response, 503, "circuit-breaker-open")
    assert (body["state"], body["retry_after"]) == ("half_open", 0.0)
    assert "half open" in body["detail"]
    assert response.headers["Retry-After"] == "1"


async def test_an_open_circuit_among_other_errors_does_not_hide_them(
    refusing: Refusing, serve: Serve, log_lines: LogLines
) -> None:
    """A group that holds a fault of our own is an internal error."""
    app = refusing.application()

    @app.get("/mixed")
    async def mixed() -> None:
        raise ExceptionGroup("both", [CircuitOpenError("open"), KeyError(SECRET)])

    problem_of(await (await serve(app)).get("/mixed"), 500, "internal-error")
    assert "KeyError" in log_lines()[0]["exception"]


async def test_a_fault_while_handling_a_refusal_is_an_internal_error(
    refusing: Refusing, serve: Serve
) -> None:
    """Only a declared cause counts, or a broken fallback would look like an outage."""
    app = refusing.application()

    @app.get("/broken-fallback")
    async def broken_fallback() -> None:
        try:
            async with refusing.breaker:
                pass
        except CircuitOpenError:
            raise KeyError(SECRET)  # noqa: B904 - a fault, not a translation

    problem_of(await (await serve(app)).get("/broken-fallback"), 500, "internal-error")
