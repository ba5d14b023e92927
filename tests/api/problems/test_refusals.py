"""A call that a breaker refused becomes a problem, wherever it was made."""

import asyncio

import pytest
from fastapi import Depends, FastAPI

from example_service.api.problems.answers import UNKNOWN_WAIT_SECONDS
from example_service.core.exceptions import CircuitBreakerOpenException
from example_service.core.settings import Settings
from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from example_service.infra.resilience.validation import MAX_REASON_LENGTH
from example_service.main import create_app
from tests.api.problems.failing_app import SECRET, problem_of
from tests.application import LogLines, Serve


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
    """Routes behind an open circuit."""
    refusing = Refusing()
    await refusing.open()
    return refusing


@pytest.mark.parametrize("path", ["/endpoint", "/dependency", "/thread", "/group", "/cause"])
async def test_an_open_circuit_is_a_problem_wherever_the_call_is_made(
    refusing: Refusing, serve: Serve, path: str, log_lines: LogLines
) -> None:
    """It has the breaker, its state, the reason and the wait; no traceback is logged."""
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
    """A client that waits that long is not refused again, and the wait is never zero."""
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
    """Unknown values are null in the body; the header is always a usable number."""
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
    ("given", "shown"),
    [
        (None, None),
        ('two\nlines, "quoted"\x1b[31m', 'two\nlines, "quoted"\x1b[31m'),
        ("half \ud83d", "half \ud83d"),
        ("x" * 10_000, "x" * MAX_REASON_LENGTH),
    ],
)
async def test_the_reason_of_a_refusal_is_escaped_and_bounded(
    serve: Serve, given: str | None, shown: str | None
) -> None:
    """Whatever the reason contains, the body is short JSON in ASCII."""
    app = create_app(Settings(environment="test"))

    @app.get("/refused")
    async def refused() -> None:
        raise CircuitBreakerOpenException("a", reason=given)

    @app.get("/raised")
    async def raised() -> None:
        raise CircuitOpenError("a", "open", 1.0, given or "-")

    client = await serve(app)
    response = await client.get("/refused")
    assert problem_of(response, 503, "circuit-breaker-open")["reason"] == shown
    assert response.content.isascii()
    assert b"\n" not in response.content
    response = await client.get("/raised")
    reason = problem_of(response, 503, "circuit-breaker-open")["reason"]
    assert reason == (given or "-")[:MAX_REASON_LENGTH]


async def test_a_circuit_forced_open_for_good_says_why(refusing: Refusing, serve: Serve) -> None:
    """The wait is unknown: null in the body, and a guess in the header."""
    refusing.breaker.force_open("the provider asked for it")
    response = await (await serve(refusing.application())).get("/endpoint")
    body = problem_of(response, 503, "circuit-breaker-open")
    assert body["reason"] == "forced open by hand: the provider asked for it"
    assert body["retry_after"] is None
    assert response.headers["Retry-After"] == str(UNKNOWN_WAIT_SECONDS)


async def test_the_detail_of_a_refusal_can_be_chosen(serve: Serve) -> None:
    """`CircuitBreakerOpenException` can carry a detail for the client."""
    app = create_app(Settings(environment="test"))

    @app.get("/refused")
    async def refused() -> None:
        raise CircuitBreakerOpenException("a", detail="Payments are paused.")

    body = (await (await serve(app)).get("/refused")).json()
    assert (body["detail"], body["breaker"], body["state"]) == ("Payments are paused.", "a", None)


async def test_a_full_half_open_circuit_says_so(refusing: Refusing, serve: Serve) -> None:
    """An excess call may be retried at once, so `Retry-After` is one second."""
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
    """An exception group that contains another error is an internal error."""
    app = refusing.application()

    @app.get("/mixed")
    async def mixed() -> None:
        raise ExceptionGroup("both", [CircuitOpenError("open"), KeyError(SECRET)])

    problem_of(await (await serve(app)).get("/mixed"), 500, "internal-error")
    assert "KeyError" in log_lines()[0]["exception"]


async def test_a_fault_while_handling_a_refusal_is_an_internal_error(
    refusing: Refusing, serve: Serve
) -> None:
    """Only an explicit cause counts, so a broken fallback is not taken for an outage."""
    app = refusing.application()

    @app.get("/broken-fallback")
    async def broken_fallback() -> None:
        try:
            async with refusing.breaker:
                pass
        except CircuitOpenError:
            raise KeyError(SECRET)  # noqa: B904 - a fault, not a translation

    problem_of(await (await serve(app)).get("/broken-fallback"), 500, "internal-error")
