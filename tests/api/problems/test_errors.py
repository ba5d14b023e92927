"""Errors raised by routes become problems that reveal nothing internal."""

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from tests.api.problems.failing_app import SECRET, problem_of
from tests.application import LogLines, Serve


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
async def test_any_error_status_becomes_a_problem(
    client: httpx.AsyncClient, status: int, slug: str, title: str
) -> None:
    """A status without its own type gets one from its number and keeps its headers."""
    response = await client.get(f"/raises/{status}")
    assert problem_of(response, status, slug)["title"].lower() == title.lower()
    assert response.headers["X-Reason"] == "because"
    explained = await client.get(f"/problems/{slug}")
    assert explained.status_code == 200
    assert explained.json()["status"] == status


@pytest.mark.parametrize("status", [204, 304, 307])
async def test_a_raised_status_that_is_not_an_error_is_not_a_problem(
    client: httpx.AsyncClient, status: int
) -> None:
    """A raised redirect or empty response keeps its headers and has no body."""
    response = await client.get(f"/raises/{status}")
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["X-Reason"] == "because"


async def test_a_detail_that_is_not_text_becomes_details(app: FastAPI, serve: Serve) -> None:
    """`detail` is always text, so anything else is in `details`."""

    @app.get("/complicated")
    async def complicated() -> None:
        raise HTTPException(409, {"current": 3, "type": "not ours"})

    body = problem_of(await (await serve(app)).get("/complicated"), 409, "http-409")
    assert body["details"] == {"current": 3, "type": "not ours"}


async def test_an_error_in_plain_text_becomes_a_problem(client: httpx.AsyncClient) -> None:
    """Its text becomes the detail, and its headers are kept."""
    response = await client.get("/plain")
    assert problem_of(response, 409, "http-409")["detail"] == "Not on a Monday."
    assert response.headers["X-Reason"] == "because"
    assert len(response.headers.get_list("Content-Type")) == 1


async def test_an_unexpected_error_is_explained_only_in_the_log(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    """The client gets the request ID; the log has one traceback with that ID."""
    response = await client.get("/fails", headers={"X-Request-ID": "of-the-failure"})
    assert problem_of(response, 500, "internal-error")["request_id"] == "of-the-failure"
    assert SECRET not in response.text
    error, access = log_lines()
    assert error["level"] == "error"
    assert "RuntimeError" in error["exception"]
    assert error["request_id"] == access["request_id"] == "of-the-failure"
    assert error["trace_id"] == access["trace_id"]
    assert access["status"] == 500
