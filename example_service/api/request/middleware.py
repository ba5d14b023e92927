"""One pass around every request: ids, log line, figures, limits, and problems for what fails.

A plain ASGI class, and one instead of several: each layer of middleware costs a request a
microsecond, and a `BaseHTTPMiddleware` a hundred, besides hiding context variables.
"""

from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from example_service.api.problems import catalogue
from example_service.api.problems.answers import Problem, problem_from, problem_from_refusal
from example_service.api.request.identity import identify, new_identity
from example_service.api.request.in_flight import InFlight
from example_service.api.route_table import RouteTable
from example_service.core.context import identity

if TYPE_CHECKING:
    from example_service.api.request.access_log import AccessLog
    from example_service.core.settings.model import LimitSettings
    from example_service.infra.metrics.http import RequestMetrics

# What is left of a refused body would have to be read to use the connection again.
_CLOSE_CONNECTION = {"Connection": "close"}
_TOO_LARGE = Problem(catalogue.BODY_TOO_LARGE, headers=_CLOSE_CONNECTION)
_TOO_SLOW = Problem(catalogue.BODY_TOO_SLOW, headers=_CLOSE_CONNECTION)
_TIMED_OUT = Problem(catalogue.REQUEST_TIMEOUT)
_OVERLOADED = Problem(catalogue.OVERLOADED, headers={"Retry-After": "1"})

_MONITORING = ("/health/", "/metrics")

_READ_HEADERS = frozenset(
    {b"content-length", b"traceparent", b"transfer-encoding", b"x-request-id"}
)
# From HTTP/2 on, a body needs no header that announces it.
_ANNOUNCING_BODIES = frozenset({"1.0", "1.1"})
_LONGEST_LENGTH_DIGITS = 18
_FIRST_ERROR_STATUS = 400
_CLIENT_CLOSED_REQUEST = 499
"""Logged and counted where a request ended without an answer; the number is nginx's."""

_log = structlog.get_logger("example_service.api")


class RequestMiddleware:
    """Wraps the application; outermost of the middleware, for it answers for all of it.

    - `X-Request-ID` and `traceparent` are taken over or made, are known to `core.context` while
      the request is served, and go out with the response.
    - Requests that are too large, too slow or too many are refused with a problem.
    - An exception that nobody handled is logged once, with its traceback, and answered with a
      problem, or ends the connection if the answer had begun.
    - What the framework refuses in plain text becomes a problem.
    - Each request is counted under the template of its route, and written to the log.

    Args:
        app: What is wrapped.
        limits: Body size, time until the answer begins, and requests at once.
        metrics: Where requests are counted.
        access_log: Where each request writes a line.
        cors: Wraps an application so that its answers get CORS headers: without them, a page in a
            browser cannot read the problems made here.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: "LimitSettings",
        metrics: "RequestMetrics",
        access_log: "AccessLog",
        cors: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log
        self._cors = cors
        self._max_body_bytes = limits.max_body_bytes
        self._max_in_flight = limits.max_concurrent_requests
        self._in_flight = InFlight(limits.request_timeout_seconds)
        self._routes: RouteTable | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is no HTTP request passes through untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._routes is None:
            self._routes = RouteTable(scope["app"].routes)
        exchange = _Exchange(scope, receive, send, self._max_body_bytes)
        token = identity.set(exchange.identity)
        self._metrics.started()
        in_flight = self._in_flight
        in_flight[exchange] = None
        if in_flight.watching_loop is not get_running_loop():
            in_flight.watch()
        try:
            if exchange.declared_bytes > self._max_body_bytes:
                await self._answer(_TOO_LARGE, exchange)
            elif len(in_flight) > self._max_in_flight and not is_for_monitoring(scope):
                await self._answer(_OVERLOADED, exchange)
            else:
                counting = exchange.receive if exchange.may_have_body else receive
                await self._app(scope, counting, exchange.send)
        except (Exception, CancelledError) as error:
            problem = _problem(error, exchange)
            if problem is None:
                raise
            await self._answer(problem, exchange)
        finally:
            del in_flight[exchange]
            duration = (exchange.ended_at or perf_counter()) - exchange.started_at
            route = self._routes.certain.get(id(scope.get("endpoint")))
            if route is None:
                route = self._routes.template(scope)
            self._metrics.finished(scope["method"], route, exchange.status, duration)
            if self._access_log.is_on:
                client = scope.get("client")
                self._access_log.write(
                    exchange.identity,
                    method=scope["method"],
                    path=scope["path"],
                    route=route,
                    status=exchange.status,
                    duration_seconds=duration,
                    client=client[0] if client else None,
                )
            identity.reset(token)

    async def _answer(self, problem: Problem, exchange: "_Exchange") -> None:
        """Send a problem, unless another answer has begun.

        An answer that has begun and will not end is left as it is: the server then closes the
        connection, which is how the client learns of it.
        """
        if exchange.began:
            if exchange.ended_at is None:
                exchange.status = catalogue.INTERNAL_ERROR.status
            return
        response = problem.response(exchange.scope)
        app = response if self._cors is None else self._cors(response)
        await app(exchange.scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and what becomes of its answer."""

    # What is true of most requests stands here once, which costs none of them anything.
    began = False
    ended_at: float | None = None
    expired = False
    body_was_late = False
    status = catalogue.INTERNAL_ERROR.status
    declared_bytes = 0
    may_have_body = False
    _awaits_body = False
    _has_whole_body = False
    _received_bytes = 0
    _refusal: Message | None = None
    _refusal_text = b""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self.started_at = perf_counter()
        self.scope = scope
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._task = current_task()
        given_id = given_trace = None
        for name, value in scope["headers"]:
            if name in _READ_HEADERS:
                # A header that comes twice says nothing for certain; the empty value is refused.
                if name == b"x-request-id":
                    given_id = value if given_id is None else b""
                elif name == b"traceparent":
                    given_trace = value if given_trace is None else b""
                else:
                    self.may_have_body = True
                    if name == b"content-length":
                        self.declared_bytes = max(self.declared_bytes, _whole_number(value))
        if scope["http_version"] not in _ANNOUNCING_BODIES:
            self.may_have_body = True
        if given_id is None and given_trace is None:
            self.identity = new_identity()
        else:
            self.identity = identify(given_id, given_trace)

    async def receive(self) -> Message:
        """What the application receives a body by: counts it."""
        self._awaits_body = not self._has_whole_body
        try:
            message = await self._receive()
        finally:
            self._awaits_body = False
        self._has_whole_body = not message.get("more_body")
        self._received_bytes += len(message.get("body", b""))
        if self._received_bytes > self._max_body_bytes:
            raise HTTPException(catalogue.BODY_TOO_LARGE.status, headers=_CLOSE_CONNECTION)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """What the application sends by. Not a coroutine of its own, to save its price."""
        if message["type"] != "http.response.start":
            if self._refusal is not None:
                return self._replace(self._refusal, message)
            if not message.get("more_body"):
                self.ended_at = perf_counter()
            return self._send(message)
        headers = message.get("headers", ())
        self.status = message["status"]
        if self.status >= _FIRST_ERROR_STATUS and _is_plain_text(headers):
            self._refusal = message
            return _nothing()
        message["headers"] = [*headers, *self.identity[2]]
        self.began = True
        return self._send(message)

    async def _replace(self, refusal: Message, message: Message) -> None:
        """Answer with a problem once the whole text is known with which the framework refused."""
        self._refusal_text += message.get("body", b"")
        if message.get("more_body"):
            return
        text = self._refusal_text.decode("utf-8", "replace")
        response = problem_from_refusal(refusal["status"], text).response(self.scope)
        response.raw_headers += _without_content(refusal["headers"])
        self._refusal = None
        await response(self.scope, self._receive, self.send)

    def expire(self) -> None:
        """Interrupt the application; `InFlight` calls this when the time is over."""
        self.expired = True
        self.body_was_late = self._awaits_body
        if self._task is not None:
            self._task.cancel()

    def interrupted_by_expiry_alone(self) -> bool:
        """Tell whether the task may go on, because nobody else wants it cancelled."""
        return self._task is not None and self._task.uncancel() == 0


def _problem(error: BaseException, exchange: _Exchange) -> Problem | None:
    """Say which problem an exception is that reached the border; None if it must go on."""
    if exchange.expired and exchange.interrupted_by_expiry_alone():
        return _TOO_SLOW if exchange.body_was_late else _TIMED_OUT
    if not isinstance(error, Exception):
        task = current_task()
        if task is None or task.cancelling():
            exchange.status = _CLIENT_CLOSED_REQUEST
            return None
        # Nobody has cancelled the request: it awaited something else that was.
        cause, error = error, RuntimeError("Something that the request awaited was cancelled.")
        error.__cause__ = cause
    problem = problem_from(error, exchange.scope)
    if exchange.began or problem.type is catalogue.INTERNAL_ERROR:
        _log.error("unhandled exception", exc_info=error, answer_had_begun=exchange.began)
    return problem


def is_for_monitoring(scope: Scope) -> bool:
    """Tell whether a request looks at health or metrics.

    Those are answered at any load and for any host, so that a worker is neither killed for being
    overloaded nor out of sight.
    """
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.startswith(_MONITORING)


def _whole_number(digits: bytes) -> int:
    # Servers refuse other values; where one does not, the bytes are counted as they come.
    return int(digits) if digits.isdigit() and len(digits) <= _LONGEST_LENGTH_DIGITS else 0


def _is_plain_text(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(b"text/plain") for n, v in headers)


def _without_content(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that hold for the problem, too: those that do not describe the old body."""
    return [(n, v) for n, v in headers if not n.lower().startswith(b"content-")]


async def _nothing() -> None:
    """Send nothing yet."""
