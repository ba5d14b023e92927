"""The provider's API, and the wrapper that breaks it."""

import asyncio
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from example_service.sandbox.charges import (
    BASE_CURRENCY,
    DECLINED_CUSTOMER_ID,
    RATES,
    ChargeRequest,
    IdempotencyKey,
    KeyReusedError,
    Ledger,
)
from example_service.sandbox.listener import connection_of
from example_service.sandbox.modes import Act, Damage, Step
from example_service.sandbox.switch import Switch
from example_service.sandbox.validation import invalid_fields, invalid_input

_IDEMPOTENCY_KEY: Final[TypeAdapter[str]] = TypeAdapter(IdempotencyKey)
_CHARGE_NOTHING: Final = JSONResponse({"id": "ch_lost", "status": "succeeded"}, status_code=201)
"""Sounds like a charge, to be garbled where none was recorded."""


def create_provider(ledger: Ledger, switch: Switch) -> ASGIApp:
    """Build the provider: a small payments API that behaves as the switch says."""

    async def rate(request: Request) -> Response:
        currency = request.path_params["currency"]
        if currency not in RATES:
            return JSONResponse({"error": "unknown currency"}, status_code=404)
        return JSONResponse({"currency": currency, "base": BASE_CURRENCY, "rate": RATES[currency]})

    async def charge(request: Request) -> Response:
        try:
            wanted = ChargeRequest.model_validate_json(await request.body())
        except ValidationError as error:
            return invalid_input(error)
        try:
            key = _IDEMPOTENCY_KEY.validate_python(request.headers.get("idempotency-key"))
        except ValidationError:
            return invalid_fields(
                {"Idempotency-Key": "Needs 1 to 255 printable ASCII characters without a space"}
            )
        return _charge(ledger, key, wanted)

    async def find_charge(request: Request) -> Response:
        found = ledger.find(request.path_params["idempotency_key"])
        if found is None:
            return JSONResponse({"error": "nothing charged with this key"}, status_code=404)
        return JSONResponse(found.model_dump())

    api = Starlette(
        routes=[
            Route("/v1/rates/{currency}", rate),
            Route("/v1/charges", charge, methods=["POST"]),
            Route("/v1/charges/{idempotency_key}", find_charge),
        ]
    )
    return Misbehaviour(api, switch)


def _charge(ledger: Ledger, key: str, wanted: ChargeRequest) -> Response:
    if wanted.currency not in RATES:
        return invalid_fields({"currency": f"Input should be one of {', '.join(RATES)}"})
    if wanted.customer_id == DECLINED_CUSTOMER_ID:
        return JSONResponse({"status": "declined", "reason": "card declined"}, status_code=402)
    try:
        charge = ledger.charge(key, wanted)
    except KeyReusedError:
        return JSONResponse(
            {"error": "this idempotency key has charged something else"}, status_code=409
        )
    return JSONResponse(charge.model_dump(), status_code=201)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer of the honest application, held back."""

    start: Message
    body: bytes

    async def send(self, send: Send) -> None:
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body})

    def with_body(self, body: bytes) -> "_Answer":
        headers = [
            (name, str(len(body)).encode() if name == b"content-length" else value)
            for name, value in self.start["headers"]
        ]
        return _Answer({**self.start, "headers": headers}, body)


class Misbehaviour:
    """ASGI wrapper that does to each call what the switch says.

    Args:
        app: The honest application.
        switch: Says what to do to each call.
    """

    def __init__(self, app: ASGIApp, switch: Switch) -> None:
        self._app = app
        self._switch = switch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        step = self._switch.next_step()
        try:
            await self._act(step, scope, receive, send)
        except ClientDisconnect:
            # The caller, or a port that began to refuse, cut the request's body short.
            return

    async def _act(self, step: Step, scope: Scope, receive: Receive, send: Send) -> None:
        match step.act:
            case Act.ANSWER:
                await self._app(scope, receive, send)
            case Act.FAIL:
                answer = JSONResponse({"error": "service unavailable"}, status_code=503)
                await answer(scope, receive, send)
            case Act.ANSWER_LATE:
                await self._answer_late(step, scope, receive, send)
            case Act.HANG:
                await self._hang(scope, receive)
            case Act.CUT:
                connection_of(scope).abort()
                await _wait_until_gone(receive)
            case Act.GARBLE:
                await self._garble(step, scope, receive, send)

    async def _answer_late(self, step: Step, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await _answer_of(self._app, scope, receive)
        try:
            async with asyncio.timeout(step.latency_seconds):
                await _wait_until_gone(receive)
        except TimeoutError:
            await answer.send(send)

    async def _hang(self, scope: Scope, receive: Receive) -> None:
        await _answer_of(self._app, scope, receive)
        cut = connection_of(scope).abort
        self._switch.hang(cut)
        try:
            await _wait_until_gone(receive)
        finally:
            self._switch.forget(cut)

    async def _garble(self, step: Step, scope: Scope, receive: Receive, send: Send) -> None:
        charges = scope["method"] == "POST"
        app = _CHARGE_NOTHING if charges and not step.records else self._app
        answer = await _answer_of(app, scope, receive)
        if step.damage is Damage.TRUNCATED:
            half = answer.body[: len(answer.body) // 2]
            await send(answer.start)
            await send({"type": "http.response.body", "body": half, "more_body": True})
            connection_of(scope).close()
            await _wait_until_gone(receive)
        else:
            await answer.with_body(_damaged(answer.body, step.damage)).send(send)


async def _answer_of(app: ASGIApp, scope: Scope, receive: Receive) -> _Answer:
    """Let the application do its work, but keep its answer."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    return _Answer(messages[0], b"".join(part["body"] for part in messages[1:]))


def _damaged(body: bytes, damage: Damage | None) -> bytes:
    match damage:
        case Damage.INVALID_JSON:
            return body[: len(body) // 2]
        case Damage.NOT_JSON:
            return b"<!doctype html><title>Bad gateway</title>"
        case _:
            return b'{"data": [null]}'


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
