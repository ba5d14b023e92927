"""One request and its response."""

from asyncio import current_task
from collections.abc import Awaitable, Iterable
from http import HTTPStatus
from time import perf_counter
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from example_service.api.problems import catalogue
from example_service.api.problems.answers import Problem, problem_from_refusal
from example_service.api.request.identity import continued_state, identify, new_identity
from example_service.api.request.protection import protection_for
from example_service.core.context import RequestIdentity
from example_service.core.lifecycle import is_draining

# To reuse the connection, the server would have to read the rest of a refused body.
CLOSE_CONNECTION: Final = {"Connection": "close"}
TOO_LARGE: Final = Problem(catalogue.BODY_TOO_LARGE, headers=CLOSE_CONNECTION)

CLIENT_CLOSED_REQUEST: Final = 499
"""The status in logs and metrics if the client left before the response, as in nginx."""

MAX_HEADERS: Final = 100
MAX_QUERY_BYTES: Final = 8_192
"""More headers or a longer query would block the event loop for too long while they are parsed."""

MAX_UNFINISHED_BODY_BYTES: Final = 65_536
"""The application is called once the body, or this many bytes of it, have arrived."""

_TOO_MANY_HEADERS: Final = Problem(
    catalogue.plain_status(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    f"A request may have at most {MAX_HEADERS} headers.",
    headers=CLOSE_CONNECTION,
)
_QUERY_TOO_LONG: Final = Problem(
    catalogue.plain_status(HTTPStatus.REQUEST_URI_TOO_LONG),
    f"A query may have at most {MAX_QUERY_BYTES} bytes.",
    headers=CLOSE_CONNECTION,
)
_UNKNOWN_ENCODING: Final = Problem(
    catalogue.plain_status(HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    "A body must be sent without `Content-Encoding`.",
    headers={**CLOSE_CONNECTION, "Accept-Encoding": "identity"},
)

_UNKNOWN_EXPECTATION: Final = Problem(
    catalogue.plain_status(HTTPStatus.EXPECTATION_FAILED),
    "The only expectation that is supported is `100-continue`.",
    headers=CLOSE_CONNECTION,
)

_READ_HEADERS: Final = frozenset(
    {
        b"content-encoding",
        b"content-length",
        b"expect",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"x-request-id",
    }
)
# Since HTTP/2, a request can have a body without a header that announces it.
_ANNOUNCING_BODIES: Final = frozenset({"1.0", "1.1"})
_MAX_LENGTH_DIGITS: Final = 18
_FIRST_ERROR_STATUS: Final = 400


class Exchange:
    """One request and its response.

    Args:
        scope: The ASGI scope of the request.
        receive: The server's `receive` callable.
        send: The server's `send` callable.
        max_body_bytes: The maximum size of the body.

    Attributes:
        refusal: The problem if the headers make the request unacceptable.
        may_have_body: Whether the request can have a body.
        began: Whether the response has started.
        ended_at: When the response ended, in seconds on the clock of `time.perf_counter`.
        status: The status of the response.
        tracestate: The usable `tracestate` of the caller. None if there is none.
        expired: Whether the request has exceeded its time limit.
        client_left: Whether the client disconnected before the body was complete.
        has_disconnected: Whether the application has been notified that the client disconnected.
    """

    # Defaults are class attributes, because setting them in `__init__` would cost every request.
    refusal: Problem | None = None
    began = False
    ended_at: float | None = None
    expired = False
    client_left = False
    has_disconnected = False
    body_was_late = False
    status = catalogue.INTERNAL_ERROR.status
    is_head = False
    tracestate: str | None = None
    _declared_bytes = 0
    _awaits_body = False
    _body: bytes | None = None
    _received_bytes = 0
    _plain_refusal: Message | None = None
    _plain_text = b""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self.arrived_at = self.started_at = perf_counter()
        self.scope = scope
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._task = current_task()
        self.may_have_body = scope["http_version"] not in _ANNOUNCING_BODIES
        self.identity = self._read_headers(scope["headers"])
        self._has_whole_body = not self.may_have_body
        if self._declared_bytes > max_body_bytes:
            self.refusal = TOO_LARGE
        elif len(scope["headers"]) > MAX_HEADERS:
            self.refusal = _TOO_MANY_HEADERS
        elif len(scope["query_string"]) > MAX_QUERY_BYTES:
            self.refusal = _QUERY_TOO_LONG

    def _read_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> RequestIdentity:
        """Read what the headers say about the body, and return the ids of the request."""
        given_id = given_trace = None
        states: list[bytes] = []
        for name, value in headers:
            if name in _READ_HEADERS:
                # A repeated header is ambiguous, so it gets an empty value, which is invalid.
                if name == b"x-request-id":
                    given_id = value if given_id is None else b""
                elif name == b"traceparent":
                    given_trace = value if given_trace is None else b""
                elif name == b"tracestate":
                    states.append(value)
                elif name == b"expect":
                    if value.lower() not in (b"", b"100-continue"):
                        self.refusal = _UNKNOWN_EXPECTATION
                else:
                    self._read_header_of_body(name, value)
        if given_id is None and given_trace is None:
            made = new_identity()
        else:
            made = identify(given_id, given_trace)
        if states and given_trace is not None:
            self.tracestate = continued_state(states, given_trace, made)
        return made

    def _read_header_of_body(self, name: bytes, value: bytes) -> None:
        if name == b"content-encoding":
            if value.strip().lower() not in (b"", b"identity"):
                self.refusal = _UNKNOWN_ENCODING
            return
        self.may_have_body = True
        if name == b"content-length":
            self._declared_bytes = max(self._declared_bytes, _whole_number(value))

    async def receive_body(self) -> bool:
        """Wait for the body, or for its first `MAX_UNFINISHED_BODY_BYTES` bytes.

        Returns:
            Whether to call the application. False if the client has disconnected.

        Raises:
            HTTPException: The body exceeds `max_body_bytes`.
        """
        pieces = []
        while not self._has_whole_body and self._received_bytes < MAX_UNFINISHED_BODY_BYTES:
            message = await self._receive_piece()
            if self.client_left:
                self.status = CLIENT_CLOSED_REQUEST
                return False
            pieces.append(message.get("body", b""))
        self._body = b"".join(pieces)
        self.started_at = perf_counter()
        return True

    async def receive(self) -> Message:
        """The `receive` callable for the application."""
        if self._body is None:
            return await self._receive_piece()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": not self._has_whole_body}

    async def _receive_piece(self) -> Message:
        self._awaits_body = not self._has_whole_body
        try:
            message = await self._receive()
        finally:
            self._awaits_body = False
        if message["type"] == "http.disconnect":
            self.has_disconnected = True
            self.client_left = not self._has_whole_body
            return message
        self._has_whole_body = not message.get("more_body")
        self._received_bytes += len(message.get("body", b""))
        if self._received_bytes > self._max_body_bytes:
            raise HTTPException(catalogue.BODY_TOO_LARGE.status, headers=CLOSE_CONNECTION)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """The `send` callable for the application. A plain function, to avoid another coroutine."""
        if message["type"] != "http.response.start":
            if self._plain_refusal is not None:
                return self._replace(self._plain_refusal, message)
            if self.is_head:
                return self._end_head()
            if not message.get("more_body"):
                self.ended_at = perf_counter()
            return self._send(message)
        headers = message.get("headers", ())
        self.status = message["status"]
        if self.status >= _FIRST_ERROR_STATUS and _is_plain_text(headers):
            self._plain_refusal = message
            return _nothing()
        message["headers"] = [*headers, *self.identity[2], *protection_for(headers)]
        self.began = True
        return self._send(message)

    def _end_head(self) -> Awaitable[None]:
        """End the response after its headers, and ignore the body that the application sends."""
        if self.ended_at is not None:
            return _nothing()
        self.ended_at = perf_counter()
        return self._send({"type": "http.response.body"})

    async def _replace(self, refusal: Message, message: Message) -> None:
        """Replace the framework's plain-text error with a problem once the text is complete."""
        self._plain_text += message.get("body", b"")
        if message.get("more_body"):
            return
        text = self._plain_text.decode("utf-8", "replace")
        response = problem_from_refusal(refusal["status"], text).response(self.scope)
        response.raw_headers += _without_content(refusal["headers"])
        self._plain_refusal = None
        await response(self.scope, self._receive, self.send)

    def expire(self) -> None:
        """Cancel the request because it exceeded its time limit. Further calls have no effect."""
        if self.expired:
            return
        self.expired = True
        self.body_was_late = self._awaits_body
        if self._task is not None:
            self._task.cancel()

    def survives_cancellation(self) -> bool:
        """Undo a cancellation by the time limit, or by the server at the end of the drain.

        Returns:
            Whether a response can be sent. False if the task was also cancelled for other reasons.
        """
        task = self._task
        if task is None or not (self.expired or (is_draining() and task.cancelling())):
            return False
        left = task.uncancel()
        while left and is_draining():
            left = task.uncancel()
        return not left


def _whole_number(digits: bytes) -> int:
    # Servers refuse invalid values. If one does not, the bytes are still counted on arrival.
    if not digits.isdigit():
        return 0
    return int((digits.lstrip(b"0") or b"0")[: _MAX_LENGTH_DIGITS + 1])


def _is_plain_text(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(b"text/plain") for n, v in headers)


def _without_content(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that do not describe the old body, so that the problem can keep them.

    `Content-Range` gives the size of the resource in a response with status 416.
    """
    return [
        (name, value)
        for name, value in headers
        if not (key := name.lower()).startswith(b"content-") or key == b"content-range"
    ]


async def _nothing() -> None:
    """Send nothing yet."""
