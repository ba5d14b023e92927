"""Orders of tests, and the responses of the provider and of the service to them."""

import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import httpx

PROVIDER_URL = "https://provider.test"
PAYMENTS = "/api/v1/payments"
ORDER = {"amount": 1250, "currency": "EUR", "customer_id": "customer-7"}

Pay: TypeAlias = Callable[..., Awaitable[httpx.Response]]


def charge_of(request: httpx.Request) -> httpx.Response:
    """The response of a healthy provider to a charge."""
    key = request.headers["Idempotency-Key"]
    charge = {"id": f"ch_{key}", "idempotency_key": key, "status": "succeeded"}
    return httpx.Response(201, json={**charge, **json.loads(request.content)})


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return status and slug of a problem that repeats no words of provider or client."""
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in response.text
    body = response.json()
    assert body["status"] == response.status_code
    return response.status_code, body["type"].removeprefix("/problems/")
