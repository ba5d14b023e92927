"""The secret in these tests, and a check of problem responses."""

from typing import Any

import httpx

SECRET = "hunter2-und-mehr"


def problem_of(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """Check that a response is a complete problem, and return its body."""
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
