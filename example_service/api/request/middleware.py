"""The middleware around every request: ids, access log, metrics, limits and problem responses.

It is a single class because each layer of middleware costs a request 1 µs, and a plain ASGI class
because a `BaseHTTPMiddleware` costs 100 µs and hides context variables.
"""

from asyncio import current_task, get_running_loop
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from anyio import BrokenResourceError
from starlette.types import ASGIApp, Receive, Scope, Send

from example_service.api.problems import catalogue
from example_service.api.problems.answers import Problem, problem_from
from example_service.api.request.exchange import (
    CLIENT_CLOSED_REQUEST,
    CLOSE_CONNECTION,
    Exchange,
)
from example_service.api.request.in_flight import InFlight
from example_service.api.route_table import RouteTable
from example_service.core.context import caller, identity, tracestate

if TYPE_CHECKING:
    from example_service.api.request.access_log import AccessLog
    from example_service.core.settings.model import LimitSettings
    from example_service.infra.metrics.http import RequestMetrics

_TOO_SLOW = Problem(catalogue.BODY_TOO_SLOW, headers=CLOSE_CONNECTION)
_TIMED_OUT = Problem(catalogue.REQUEST_TIMEOUT, headers={"Retry-After": "1"})
_OVERLOADED = Problem(catalogue.OVERLOADED, headers={"Retry-After": "1"})

_MONITORING = ("/health/", "/metrics")

_log = structlog.get_logger("example_service.api")


class RequestMiddleware:
    """Wraps the application. It is the outermost middleware, because it covers all others.

    - The ids in `X-Request-ID` and `traceparent` are the caller's or new ones. They are available
      in `core.context` while the request is served, and are sent with the response.
    - Requests that are too large, too slow or too many are refused with a problem. A request is not
      in flight before its body has arrived, nor after its response has started. The same number of
      requests may wait for their bodies; one more ends the oldest of them.
    - `HEAD` is supported wherever `GET` is.
    - Every response gets the security headers that it lacks.
    - An unhandled exception is logged once, with its traceback. The response is a problem; if the
      response has already started, the connection is closed.
    - Plain-text errors of the framework become problems.
    - Each request is counted under the template of its route, and logged.

    Args:
        app: The application to wrap.
        limits: The limits on body size, time until the response starts, and concurrent requests.
        metrics: Counts the requests.
        access_log: Writes a line for each request.
        cors: Wraps an application to add CORS headers to its responses. Without them, a page in a
            browser cannot read the problems that are sent here.
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
        self._receiving = InFlight(limits.receive_timeout_seconds)
        self._routes: RouteTable | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request. Other connections are passed through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._routes is None:
            self._routes = RouteTable(scope["app"].routes)
        exchange = Exchange(scope, receive, send, self._max_body_bytes)
        method = scope["method"]
        if method == "HEAD":
            exchange.scope = scope = {**scope, "method": "GET"}
            exchange.is_head = True
        token = identity.set(exchange.identity)
        # Most requests have neither, and setting a variable costs more than reading it.
        if tracestate.get() is not exchange.tracestate:
            tracestate.set(exchange.tracestate)
        if caller.get() is not None:
            caller.set(None)
        self._metrics.started()
        try:
            await self._serve(exchange)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            # This includes the panics of extensions that are written in Rust.
            if not await self._has_handled(error, exchange):
                raise
        finally:
            self._record(exchange, method, self._routes)
            identity.reset(token)

    async def _has_handled(self, error: BaseException, exchange: Exchange) -> bool:
        """Handle the error of a request. False if it must be raised again."""
        if exchange.client_left:
            exchange.status = CLIENT_CLOSED_REQUEST
        elif exchange.has_disconnected and _is_of_broken_stream(error):
            # FastAPI could not pass on the next event.
            pass
        elif (problem := _problem(error, exchange)) is not None:
            await self._answer(problem, exchange)
        else:
            return False
        return True

    def _record(self, exchange: Exchange, method: str, routes: RouteTable) -> None:
        """Count and log a request that has ended."""
        scope = exchange.scope
        duration = (exchange.ended_at or perf_counter()) - exchange.arrived_at
        route = routes.certain.get(id(scope.get("endpoint")))
        if route is None:
            route = routes.template(scope)
        self._metrics.finished(method, route, exchange.status, duration)
        if self._access_log.is_on:
            client = scope.get("client")
            self._access_log.write(
                exchange.identity,
                method=method,
                path=scope["path"],
                route=route,
                status=exchange.status,
                duration_seconds=duration,
                client=client[0] if client else None,
            )

    async def _serve(self, exchange: Exchange) -> None:
        """Pass a request to the application, unless it is refused or its client disconnects."""
        if exchange.refusal is not None:
            await self._answer(exchange.refusal, exchange)
            return
        if exchange.may_have_body and not await self._receive_body(exchange):
            return
        in_flight = self._in_flight
        in_flight[exchange] = None
        if in_flight.watching_loop is not get_running_loop():
            in_flight.watch()
        try:
            if (
                len(in_flight) > self._max_in_flight
                and in_flight.exceeds(self._max_in_flight)
                and not is_for_monitoring(exchange.scope)
            ):
                await self._answer(_OVERLOADED, exchange)
            else:
                await self._app(exchange.scope, exchange.receive, exchange.send)
        finally:
            in_flight.pop(exchange, None)

    async def _receive_body(self, exchange: Exchange) -> bool:
        """Wait for the body of a request. If too many requests wait, the oldest is ended."""
        receiving = self._receiving
        receiving[exchange] = None
        if receiving.watching_loop is not get_running_loop():
            receiving.watch()
        if len(receiving) > self._max_in_flight:
            receiving.expire_oldest()
        try:
            return await exchange.receive_body()
        finally:
            del receiving[exchange]

    async def _answer(self, problem: Problem, exchange: Exchange) -> None:
        """Send a problem, unless a response has already started.

        A response that has started remains incomplete. The server then closes the connection, which
        shows the client that the response failed.
        """
        if exchange.began:
            if exchange.ended_at is None:
                exchange.status = catalogue.INTERNAL_ERROR.status
            return
        response = problem.response(exchange.scope)
        app = response if self._cors is None else self._cors(response)
        await app(exchange.scope, exchange.receive, exchange.send)


def _is_of_broken_stream(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_of_broken_stream(member) for member in error.exceptions)
    return isinstance(error, BrokenResourceError)


def _problem(error: BaseException, exchange: Exchange) -> Problem | None:
    """Convert an exception to a problem. None if the exception must be raised again."""
    if exchange.survives_cancellation():
        return _TOO_SLOW if exchange.body_was_late else _TIMED_OUT
    if not isinstance(error, Exception):
        task = current_task()
        if task is None or task.cancelling():
            exchange.status = CLIENT_CLOSED_REQUEST
            return None
        # The request itself was not cancelled, but perhaps something that it awaited was.
        cause, error = error, RuntimeError(f"The request raised {type(error).__name__}.")
        error.__cause__ = cause
    problem = problem_from(error, exchange.scope)
    if exchange.began or problem.type is catalogue.INTERNAL_ERROR:
        _log.error("unhandled exception", exc_info=error, answer_had_begun=exchange.began)
    return problem


def is_for_monitoring(scope: Scope) -> bool:
    """Whether a request is for health or metrics.

    Those are served at any load and for any host, so that an overloaded worker is not killed and
    remains visible to monitoring.
    """
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.startswith(_MONITORING)
