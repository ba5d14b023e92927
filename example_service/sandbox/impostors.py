"""Responses of intermediaries, such as gateways and caches, in place of the provider's."""

import json
from typing import Any, Final
from uuid import uuid4

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from example_service.sandbox.modes import Impostor, Step

_WORDS: Final = {400: "refused", 402: "declined", 404: "unknown", 409: "cancelled", 422: "refused"}
"""The outcome of a key that each status stands for in the provider's contract."""


def answer_of(step: Step, idempotency_key: str | None) -> Response:
    """Build the response to an intercepted call.

    Args:
        step: The step with the impostor and the status of its response.
        idempotency_key: The key in the call, if any.
    """
    key, other = idempotency_key or str(uuid4()), str(uuid4())
    match step.impostor:
        case Impostor.PAGE:
            return HTMLResponse("<!doctype html><title>Please log in</title>", step.status)
        case Impostor.MISLABELLED:
            body = json.dumps(_outcome(step.status, key))
            return PlainTextResponse(body, step.status)
        case Impostor.NOTHING:
            return Response(status_code=step.status)
    bodies: dict[Impostor | None, dict[str, Any]] = {
        Impostor.ANOTHER_CHARGE: _charge(other),
        Impostor.ANOTHER_ORDER: _charge(key),
        Impostor.ANOTHER_OUTCOME: _outcome(step.status, other),
    }
    own_error = {"status": "refused", "code": step.status}
    return JSONResponse(bodies.get(step.impostor, own_error), step.status)


def _outcome(status: int, key: str) -> dict[str, Any]:
    word = _WORDS.get(status, "declined")
    return {"idempotency_key": key, "status": word, "reason": "of another call"}


def _charge(key: str) -> dict[str, Any]:
    return {
        "id": f"ch_{uuid4().hex}",
        "idempotency_key": key,
        "amount": 1,
        "currency": "USD",
        "customer_id": "another customer",
        "status": "succeeded",
    }
