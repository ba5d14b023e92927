"""Logs one line for each request, except those that the dashboard makes by itself."""

import logging
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import _CONTEXT_VARS, get_contextvars

from example_service.core.context import TRACE_ID, caller
from example_service.core.logging import printable, timestamp, writes_to_console
from example_service.core.output import output

if TYPE_CHECKING:
    from collections.abc import Callable

    from example_service.core.context import RequestIdentity
    from example_service.core.settings import Settings

_NAME = "example_service.access"
_EVENT = "request"
_BEGINNING = f'"level":"info","logger":"{_NAME}","event":"{_EVENT}",'

DASHBOARD = "dashboard"
"""The client address of requests that the service sends to itself for the outage lab."""

_ROUTES_OF_DASHBOARD = ("/dashboard/", "/sandbox/traffic/")
_READ_BY_DASHBOARD = ("/", "/sandbox/mode")
_FIRST_ERROR_STATUS = 400
_CLIENT_CLOSED_REQUEST = 499


class AccessLog:
    """Writes the access log. Create it after `configure_logging`.

    On a console, a line is short (method, path, status and milliseconds), so that it does not hide
    the log lines about circuits. As JSON, it has the same members in the same order as other lines.
    Rendering it through structlog would cost every request 8 µs, so the JSON is formatted here
    unless structlog's context variables contain further members.

    Requests of the dashboard are only logged if they were refused or failed.

    Args:
        settings: The settings that decide whether access lines are logged, and in which format.
    """

    def __init__(self, settings: "Settings") -> None:
        self._log = structlog.get_logger(_NAME)
        self.is_on = settings.log.access and self._log.is_enabled_for(logging.INFO)
        self._is_console = writes_to_console(settings)
        self._write_line: Callable[[str], object] = output.write

    def write(
        self,
        identity: "RequestIdentity",
        *,
        method: str,
        path: str,
        route: str,
        status: int,
        duration_seconds: float,
        client: str | None,
    ) -> None:
        """Write the line of one request.

        Args:
            identity: The ids of the request, which need no escaping.
            method: The method as it was sent.
            path: The path as it was sent, percent-decoded.
            route: The template of the route that served the request.
            status: The status of the response.
            duration_seconds: The time from the arrival of the request to the end of the response.
            client: The client's address. None if it is unknown.
        """
        if client == DASHBOARD or (
            (status < _FIRST_ERROR_STATUS or status == _CLIENT_CLOSED_REQUEST)
            and _is_of_dashboard(method, route)
        ):
            return
        if self._is_console:
            request = printable(f"{method} {path}")
            by = "" if (name := caller.get()) is None else f" caller={printable(name)}"
            milliseconds = 1000 * duration_seconds
            self._write_line(
                f"{timestamp()} [info     ] {request} {status} {milliseconds:.1f} ms{by}\n"
            )
            return
        # `_CONTEXT_VARS` is empty until something is bound anywhere in the process. Asking it first
        # saves most services 4 µs for each request.
        if _CONTEXT_VARS and get_contextvars():
            self._log.info(
                _EVENT,
                method=method,
                route=route,
                status=status,
                duration_seconds=round(duration_seconds, 6),
                client=client,
            )
            return
        request_id, traceparent, _ = identity
        by = "" if (name := caller.get()) is None else f'"caller":{quoted(name)},'
        self._write_line(
            f'{{"timestamp":"{timestamp()}",{_BEGINNING}"request_id":"{request_id}",'
            f'"trace_id":"{traceparent[TRACE_ID]}",{by}{_outcome(method, route, status)},'
            f'"duration_seconds":{duration_seconds:.6f},'
            f'"client":{"null" if client is None else quoted(client)}}}\n'
        )


@lru_cache(maxsize=1024)
def _outcome(method: str, route: str, status: int) -> str:
    return f'"method":{quoted(method)},"route":{quoted(route)},"status":{status}'


@lru_cache(maxsize=1024)
def _is_of_dashboard(method: str, route: str) -> bool:
    return f"{route}/".startswith(_ROUTES_OF_DASHBOARD) or (
        route in _READ_BY_DASHBOARD and method == "GET"
    )
