"""One line in the log for each request, except those that the dashboard makes by itself."""

import logging
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import get_contextvars

from example_service.core.context import TRACE_ID, caller
from example_service.core.logging import printable, timestamp, writes_to_console

if TYPE_CHECKING:
    from collections.abc import Callable

    from example_service.core.context import RequestIdentity
    from example_service.core.settings import Settings

_NAME = "example_service.access"
_EVENT = "request"

DASHBOARD = "dashboard"
"""In place of an address, for requests that the service sends to itself to show an outage."""

_ROUTES_OF_DASHBOARD = ("/dashboard", "/sandbox/traffic")
_FIRST_ERROR_STATUS = 400
_CLIENT_CLOSED_REQUEST = 499


class AccessLog:
    """Writes the access lines. Make it after `configure_logging`.

    On a console a line is short: method, path, status and milliseconds, so that the story of the
    circuits stays readable in between. As JSON it has the same members in the same order as all
    other lines. There is one for each request, and the general way to a line of JSON costs eight
    microseconds, so that line is put together here unless something else is bound to the request's
    context.

    Requests of the dashboard, which keeps a stream open, are written only where they were refused
    or failed.

    Args:
        settings: Say whether access lines are wanted, and in which form.
    """

    def __init__(self, settings: "Settings") -> None:
        self._log = structlog.get_logger(_NAME)
        self.is_on = settings.log.access and self._log.is_enabled_for(logging.INFO)
        self._is_console = writes_to_console(settings)
        self._write_finished: Callable[[str], object]
        self._write_finished = structlog.get_config()["logger_factory"](_NAME).info

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
            identity: Its ids, which need no escaping.
            method: Method as it was sent.
            path: Path as it was sent, decoded.
            route: Template of the route that served it.
            status: Status of the answer.
            duration_seconds: From its arrival to the end of the answer.
            client: Address of the peer, None where there is none.
        """
        if client == DASHBOARD or (
            route.startswith(_ROUTES_OF_DASHBOARD)
            and (status < _FIRST_ERROR_STATUS or status == _CLIENT_CLOSED_REQUEST)
        ):
            return
        if self._is_console:
            request = printable(f"{method} {path}")
            by = "" if (name := caller.get()) is None else f" caller={printable(name)}"
            self._write_finished(
                f"{timestamp()} [info     ] {request} {status} {1000 * duration_seconds:.1f} ms{by}"
            )
            return
        if get_contextvars():
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
        self._write_finished(
            f'{{"timestamp":"{timestamp()}","level":"info","logger":"{_NAME}",'
            f'"event":"{_EVENT}","request_id":"{request_id}",'
            f'"trace_id":"{traceparent[TRACE_ID]}",{by}"method":{quoted(method)},'
            f'"route":{quoted(route)},"status":{status},"duration_seconds":{duration_seconds:.6f},'
            f'"client":{"null" if client is None else quoted(client)}}}'
        )
