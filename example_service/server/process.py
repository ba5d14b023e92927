"""A server process: uvicorn with a graceful shutdown that loses no request.

The first SIGTERM or SIGINT starts the drain: `is_draining()` becomes true, the readiness endpoint
returns 503, and each response closes its connection. Requests are still accepted for
`SHUTDOWN__DRAIN_SECONDS`. Then the socket is closed, and requests in flight have
`SHUTDOWN__GRACE_SECONDS` to finish. A second signal ends the process immediately.
"""

import asyncio
import errno
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn

from example_service.api.request.proxies import RootPath
from example_service.core.lifecycle import begin_draining, end_draining
from example_service.core.settings import Settings
from example_service.core.settings.model import ShutdownSettings
from example_service.server.protocol import ConnectionLimits, ProblemProtocol

logger = logging.getLogger(__name__)

APPLICATION: Final = "example_service.main:create_app"
STOP_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM})

CLEAN_UP_SECONDS: Final = 5.0
"""How long requests that are cancelled after the grace period have to clean up, and then the
application, in seconds."""

# How often a process reports that its event loop is running, in seconds.
ALIVE_SECONDS: Final = 1.0

# Longer than a busy machine needs between two signals of `timeout`.
_ECHO_SECONDS: Final = 0.25

_BACKLOG = 2048

# The kernel's buffer size for each direction of a connection, in bytes.
_SOCKET_BUFFER_BYTES = 131_072

# How long a client may take to send its first request before its connection counts as idle.
_FIRST_REQUEST_SECONDS = 1.0
_POLL_SECONDS = 0.05

_TICKS_PER_CHECK = 10
_CHECK_SECONDS = 1.0

# File descriptors reserved for the database, outgoing connections, logs and files.
_OTHER_FILES = 160


class ListenError(Exception):
    """The server cannot listen on the address. The message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Create the listening socket. This comes first, so that startup fails early.

    Args:
        host: A host name or address; `::` means all IPv6 and IPv4 addresses.
        port: A TCP port; 0 selects a free one.

    Raises:
        ListenError: The address is in use, not local or not permitted.
    """
    ipv6 = ":" in host
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except UnicodeError as error:
        raise ListenError(f"{host!a} is not a valid host name: HOST or --host.") from error
    except OSError as error:
        raise ListenError(_listen_problem(host, port, error)) from error
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        listener.setsockopt(socket.SOL_SOCKET, buffer, _SOCKET_BUFFER_BYTES)
    return listener


def _listen_problem(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another program. "
            f"Stop that, or choose another port: PORT={port % 65_535 + 1} or --port."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} is reserved. Choose one above 1023: PORT=8000 or --port 8000."
    # `create_server` repeats the address in its text.
    reason = str(error.strerror).partition(" (while")[0]
    return f"Cannot listen on {host!a}: {reason}. Choose another address: HOST or --host."


def server_config(settings: Settings) -> uvicorn.Config:
    """Configure uvicorn, without the features that the service implements itself."""
    limits = ConnectionLimits(
        connections=_max_connections(settings),
        receive_seconds=settings.limits.receive_timeout_seconds,
        send_seconds=settings.limits.send_timeout_seconds,
    )
    prefix = RootPath(settings.http.trusted_proxies, settings.http.root_path)
    protocol = partial(ProblemProtocol, limits=limits, path_prefix=prefix)
    return uvicorn.Config(
        APPLICATION,
        factory=True,
        workers=1,
        # "auto" uses uvloop if it is installed.
        loop="auto",
        http=cast("type[ProblemProtocol]", protocol),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # The application reads them itself.
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.http.keep_alive_seconds,
        # Requests are cancelled before this, and then have time to clean up.
        timeout_graceful_shutdown=math.ceil(settings.shutdown.grace_seconds + CLEAN_UP_SECONDS),
        # Otherwise a pipelined request would start in the context of the previous one.
        reset_contextvars=True,
    )


def _max_connections(settings: Settings) -> int:
    """The limit of connections, reduced if too few file descriptors would be left."""
    if sys.platform == "win32":
        return settings.limits.max_connections
    import resource  # noqa: PLC0415 - not on Windows

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return settings.limits.max_connections
    return min(settings.limits.max_connections, max(files - _OTHER_FILES, files // 2))


def is_echo(first: tuple[int, float], second: tuple[int, float]) -> bool:
    """Whether the second signal is a duplicate of the first.

    `timeout`, for example, signals its child and then the whole process group, which includes the
    child.

    Args:
        first: The number of the first signal, and the time when it arrived, in seconds.
        second: The same for the second signal.
    """
    return first[0] == second[0] and second[1] <= first[1] + _ECHO_SECONDS


def _log_error_of_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the event loop, unless `_check_files` logs it."""
    if getattr(context.get("exception"), "errno", None) not in (errno.EMFILE, errno.ENFILE):
        loop.default_exception_handler(context)


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains before it stops.

    Args:
        config: The uvicorn configuration.
        shutdown: How long requests are accepted after the first signal, and how long those in
            flight have to finish.
        on_started: Called once, when the server accepts requests.
        on_alive: Called about once a second while the event loop is running.
        stop_signals: The signals that stop the server. The others of SIGINT and SIGTERM are
            ignored.
        second_signal_ends: Whether a second signal ends the process immediately.
        exit_now: Ends the process immediately with an exit status, without clean-up.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        shutdown: ShutdownSettings,
        on_started: Callable[[], None],
        on_alive: Callable[[], None] = lambda: None,
        stop_signals: frozenset[signal.Signals] = STOP_SIGNALS,
        second_signal_ends: bool = True,
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(config)
        self._drain_seconds = shutdown.drain_seconds
        self._grace_seconds = shutdown.grace_seconds
        self._on_started = on_started
        self._on_alive = on_alive
        self._stop_signals = stop_signals
        self._second_signal_ends = second_signal_ends
        self._exit_now = exit_now
        self._first_signal = (0, 0.0)
        self._drained_at: float | None = None
        self._has_no_files = False
        self._last_resort: threading.Timer | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve requests on listening sockets until a signal arrives."""
        end_draining()
        try:
            super().run(sockets)
        finally:
            if self._last_resort is not None:
                self._last_resort.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then call `on_started`."""
        asyncio.get_running_loop().set_exception_handler(_log_error_of_loop)
        await super().startup(sockets)
        # Full collections pause the process, so exclude the objects that live until its end.
        gc.collect()
        gc.freeze()
        if self.started:
            self._on_started()
            self._report_alive()

    def _report_alive(self) -> None:
        self._on_alive()
        asyncio.get_running_loop().call_later(ALIVE_SECONDS, self._report_alive)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Start the drain on the first signal, and end the process on the second.

        Unlike uvicorn, this does not raise the signal again after a graceful shutdown, so the exit
        status is 0.
        """
        if sig not in self._stop_signals:
            return
        now = time.monotonic()
        if self._drained_at is not None:
            if self._second_signal_ends and not is_echo(self._first_signal, (sig, now)):
                self._exit_now(128 + sig)
            return
        begin_draining()
        self._first_signal = (sig, now)
        self._drained_at = now + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Check the connections once a second, and end the drain. Called ten times a second.

        Returns:
            Whether to close the socket and stop.
        """
        if counter % _TICKS_PER_CHECK == 0:
            self._check_connections()
            self._check_files()
        if self._drained_at is not None:
            for connection in self._connections():
                connection.close_with_answer()
            self.should_exit |= time.monotonic() >= self._drained_at
        return await super().on_tick(counter)

    def _connections(self) -> list[ProblemProtocol]:
        return cast("list[ProblemProtocol]", list(self.server_state.connections))

    def _check_connections(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.check(now)

    def _check_files(self) -> None:
        """Log once when there are no free file descriptors and new connections are refused.

        uvloop does not log this at all, and asyncio's own event loop logs it every second.
        """
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if not self._has_no_files:
                logger.error(  # noqa: TRY400 - there is no more to say
                    "No file descriptors are left; new connections are refused until one is closed",
                    extra={"reason": error.strerror, "connections": len(self._connections())},
                )
            self._has_no_files = True
        else:
            self._has_no_files = False

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            self._check_connections()

    def _cancel_requests(self) -> None:
        """Cancel the requests that are still running at the end of the grace period."""
        # A second cancellation would interrupt the clean-up of requests that have timed out.
        running = [task for task in self.server_state.tasks if not task.cancelling()]
        if running:
            logger.warning(
                "The grace period is over; requests are cancelled", extra={"requests": len(running)}
            )
        for task in running:
            task.cancel()

    async def _stop_accepting(self, sockets: list[socket.socket]) -> None:
        """Close the socket, and wait for the first request on connections that are new.

        If other workers share the socket, clients connect until it is closed. Without the wait,
        their connections would be closed as idle while their requests are on the way.
        """
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        # The event loop sets up the connections that it has accepted in its next rounds.
        await asyncio.sleep(_POLL_SECONDS)
        while self._has_new_connections():  # noqa: ASYNC110 - they change by themselves
            await asyncio.sleep(_POLL_SECONDS)

    def _has_new_connections(self) -> bool:
        since = asyncio.get_running_loop().time() - _FIRST_REQUEST_SECONDS
        return any(connection.is_new(since) for connection in self._connections())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the socket, let requests finish, and then let the application clean up.

        At the end of the grace period, the remaining requests are cancelled once and clean up while
        the application still works. A hard limit follows, because a blocking call in a thread
        cannot be cancelled.
        """
        limit = self._grace_seconds + 2 * CLEAN_UP_SECONDS
        self._last_resort = threading.Timer(limit, self._exit_now, args=(1,))
        self._last_resort.daemon = True
        self._last_resort.start()
        loop = asyncio.get_running_loop()
        cancelling = loop.call_later(self._grace_seconds, self._cancel_requests)
        # `on_tick` is no longer called, but slow clients must still be disconnected.
        checking = asyncio.create_task(self._keep_checking())
        try:
            await self._stop_accepting(sockets or [])
            await super().shutdown(sockets)
        finally:
            cancelling.cancel()
            checking.cancel()
