"""The provider's API, and the wrapper that makes it misbehave."""

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
    RATES,
    ChargeRequest,
    IdempotencyKey,
    KeyReusedError,
    Ledger,
    Outcome,
)
from example_service.sandbox.impostors import answer_of
from example_service.sandbox.listener import connection_of
from example_service.sandbox.modes import Act, Damage, Step
from example_service.sandbox.switch import Switch
from example_service.sandbox.validation import field_messages, invalid_fields

_CHARGES: Final = "/v1/charges"
_IDEMPOTENCY_KEY: Final[TypeAdapter[str]] = TypeAdapter(IdempotencyKey)
_CHARGE_NOTHING: Final = JSONResponse({"id": "ch_lost", "status": "succeeded"}, status_code=201)
"""Looks like a charge. It is garbled and sent if no charge was recorded."""

_STATUSES: Final = {"succeeded": 201, "declined": 402, "refused": 422, "cancelled": 409}
"""The status of the response to a charge, for each outcome of its key."""


def create_provider(ledger: Ledger, switch: Switch) -> ASGIApp:
    """Build the provider: a small payments API that misbehaves as the switch requires."""

    async def rate(request: Request) -> Response:
        currency = request.path_params["currency"]
        if currency not in RATES:
            unknown = {"currency": currency, "error": "unknown currency"}
            return JSONResponse(unknown, status_code=404)
        return JSONResponse({"currency": currency, "base": BASE_CURRENCY, "rate": RATES[currency]})

    at_work: set[str] = set()

    async def charge(request: Request) -> Response:
        body = await request.body()
        try:
            key = _IDEMPOTENCY_KEY.validate_python(request.headers.get("idempotency-key"))
        except ValidationError:
            return invalid_fields(
                {"Idempotency-Key": "Needs 1 to 255 printable ASCII characters without a space"}
            )
        return _in_progress(key) if key in at_work else _charge(ledger, key, body)

    async def find_charge(request: Request) -> Response:
        key = request.path_params["idempotency_key"]
        found = ledger.find(key)
        if found is None:
            unknown = {"idempotency_key": key, "status": "unknown"}
            return JSONResponse(unknown, status_code=404)
        return _shown(found)

    async def cancel(request: Request) -> Response:
        key = request.path_params["idempotency_key"]
        return _in_progress(key) if key in at_work else _shown(ledger.cancel(key))

    api = Starlette(
        routes=[
            Route("/v1/rates/{currency}", rate),
            Route(_CHARGES, charge, methods=["POST"]),
            Route(_CHARGES + "/{idempotency_key}", find_charge),
            Route(_CHARGES + "/{idempotency_key}/cancel", cancel, methods=["POST"]),
        ]
    )
    return Misbehaviour(api, switch, at_work)


def _charge(ledger: Ledger, key: str, body: bytes) -> Response:
    try:
        wanted = ChargeRequest.model_validate_json(body)
    except ValidationError as error:
        return _refuse(ledger, key, field_messages(error))
    if wanted.currency not in RATES:
        message = f"Input should be one of {', '.join(RATES)}"
        return _refuse(ledger, key, {"currency": message})
    try:
        outcome = ledger.charge(key, wanted)
    except KeyReusedError:
        return JSONResponse(
            {"error": "this idempotency key has charged something else"}, status_code=409
        )
    return _shown(outcome, _STATUSES[outcome.status])


def _refuse(ledger: Ledger, key: str, messages: dict[str, str]) -> Response:
    reason = "; ".join(f"{field}: {text}" for field, text in messages.items())
    outcome = ledger.refuse(key, reason)
    if outcome.status != "refused":
        return _shown(outcome, _STATUSES[outcome.status])
    return invalid_fields(messages, **outcome.model_dump())


def _in_progress(key: str) -> Response:
    return JSONResponse({"idempotency_key": key, "status": "in_progress"}, status_code=409)


def _shown(outcome: Outcome, status_code: int = 200) -> Response:
    return JSONResponse(outcome.model_dump(exclude_none=True), status_code=status_code)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A buffered response of the working application."""

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
    """ASGI middleware that treats each call as the switch requires.

    Args:
        app: The working application.
        switch: Returns the step for each call.
        at_work: The keys with a slow call in progress. The application refuses other calls with
            these keys.
    """

    def __init__(self, app: ASGIApp, switch: Switch, at_work: set[str]) -> None:
        self._app = app
        self._switch = switch
        self._at_work = at_work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        step = self._switch.next_step()
        try:
            await self._act(step, scope, receive, send)
        except ClientDisconnect:
            # The connection ended before the request's body was complete.
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
            case Act.DELAY:
                await self._delay(step, scope, receive, send)
            case Act.INTERCEPT:
                await self._intercept(step, scope, receive, send)

    async def _answer_late(self, step: Step, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key_of(scope) if scope["method"] == "POST" else None
        if key in self._at_work:
            await self._app(scope, receive, send)
            return
        answer = await _answer_of(self._app, scope, receive)
        if key is not None:
            self._work_on(key, step.latency_seconds or 0.0)
        try:
            async with asyncio.timeout(step.latency_seconds):
                await _wait_until_gone(receive)
        except TimeoutError:
            await answer.send(send)

    def _work_on(self, key: str, seconds: float) -> None:
        """Keep a key in progress until its response is due, even if the caller disconnects."""
        self._at_work.add(key)
        asyncio.get_running_loop().call_later(seconds, self._at_work.discard, key)

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

    async def _delay(self, step: Step, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a charge arrive later, even if its caller disconnects."""
        if scope["path"] != _CHARGES:
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        if await self._switch.late_charges.arrive(step.latency_seconds or 0.0):
            answer = await _answer_of(self._app, scope, _replaying(body))
            await answer.send(send)
        else:
            connection_of(scope).abort()
            await _wait_until_gone(receive)

    async def _intercept(self, step: Step, scope: Scope, receive: Receive, send: Send) -> None:
        if step.records:
            await _answer_of(self._app, scope, receive)
        await answer_of(step, _key_of(scope))(scope, receive, send)


def _key_of(scope: Scope) -> str | None:
    """Return the idempotency key in the path or the headers of a call, if any."""
    path: str = scope["path"]
    if path.startswith(_CHARGES + "/"):
        return path.removeprefix(_CHARGES + "/").removesuffix("/cancel")
    return Request(scope).headers.get("idempotency-key")


def _replaying(body: bytes) -> Receive:
    """Make a `receive` callable that returns a body that was already read."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _answer_of(app: ASGIApp, scope: Scope, receive: Receive) -> _Answer:
    """Call the application and buffer its response."""
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
