"""A loopback port that can refuse connections and accept them again."""

import asyncio
import socket
from typing import Final, cast

from starlette.types import ASGIApp, Scope
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_CONNECTION: Final = "connection"
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than clients keep idle connections, so that none is closed just as a request is sent."""


class _Connection(HttpToolsProtocol):
    """uvicorn's HTTP protocol, extended to give the application access to the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {_CONNECTION: transport}


def connection_of(scope: Scope) -> asyncio.Transport:
    """Return the connection of a request, to close or abort it."""
    return cast("asyncio.Transport", scope["state"][_CONNECTION])


class Listener:
    """Serves an ASGI application on one address, and can refuse connections.

    The port stays bound until `close`. While connections are refused, it is bound but not
    listening: connecting fails with ECONNREFUSED, and no other process can take the port.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        """Bind the port.

        Args:
            app: The ASGI application.
            host: An IP address.
            port: The port. 0 chooses a free one.

        Raises:
            OSError: If the address is not available.
        """
        self._config = Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = self._bind(host, port)
        self._host, self._port = self._socket.getsockname()[:2]

    @property
    def url(self) -> str:
        """The base URL of the application, without a trailing slash."""
        host = f"[{self._host}]" if self._family == socket.AF_INET6 else self._host
        return f"http://{host}:{self._port}"

    async def open(self) -> None:
        """Start to listen. Has no effect if it already does."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._connection, sock=self._socket)

    async def refuse(self) -> None:
        """Stop listening and abort all connections. Has no effect if it does not listen."""
        if self._server is not None:
            self._shut()
            self._socket = self._bind(self._host, self._port)
            # asyncio closes aborted connections in the next iteration of the event loop. A client
            # must not send its next call over one of them.
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Release the port, abort all connections and wait until their requests have ended."""
        self._shut()
        self._socket.close()
        await asyncio.gather(*self._state.tasks)

    def _bind(self, host: str, port: int) -> socket.socket:
        # asyncio only sets TCP_NODELAY if the socket's protocol is IPPROTO_TCP. Without it, Nagle's
        # algorithm delays responses on keep-alive connections by 40 ms.
        bound = socket.socket(self._family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            # Without this option, the port cannot be bound again while old connections linger.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
        except OSError:
            bound.close()
            raise
        return bound

    def _connection(self) -> _Connection:
        return _Connection(config=self._config, server_state=self._state, app_state={})

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._state.connections):
            connection.transport.abort()
