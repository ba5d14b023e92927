"""What goes wrong in these tests, and what a problem looks like."""

from typing import Any

import httpx

SECRET = "hunter2-und-mehr"


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
