"""A loopback port that can really refuse connections and really come back."""

import asyncio
import socket
from typing import Final, cast

from starlette.types import ASGIApp, Scope
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_CONNECTION: Final = "connection"
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than clients keep idle connections, so that none is closed while a request is sent."""


class _Connection(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which lets the application reach the connection itself."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {_CONNECTION: transport}


def connection_of(scope: Scope) -> asyncio.Transport:
    """Return the connection on which this request came, to close or cut it."""
    return cast("asyncio.Transport", scope["state"][_CONNECTION])


class Listener:
    """Serves an ASGI application on one address, with a door that can be shut.

    The port is taken for as long as this object lives. While it refuses, the port is bound but
    not listening, so that connecting fails with ECONNREFUSED and the port stays ours.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        """Take the port.

        Args:
            app: The ASGI application.
            host: A literal address.
            port: 0 chooses a free one.

        Raises:
            OSError: If the address cannot be had.
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
        """The base URL of what is served here, without a slash at its end."""
        host = f"[{self._host}]" if self._family == socket.AF_INET6 else self._host
        return f"http://{host}:{self._port}"

    async def open(self) -> None:
        """Accept connections. Does nothing when it already does."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._connection, sock=self._socket)

    def refuse(self) -> None:
        """Stop listening and cut every live connection. Does nothing when already refusing."""
        if self._server is not None:
            self._shut()
            self._socket = self._bind(self._host, self._port)

    async def close(self) -> None:
        """Give the port up, cut every live connection and wait until its requests have ended."""
        self._shut()
        self._socket.close()
        await asyncio.gather(*self._state.tasks)

    def _bind(self, host: str, port: int) -> socket.socket:
        # asyncio turns Nagle's algorithm off only where the protocol is named. With it, an answer
        # on a kept connection waits 40 ms for the client's kernel.
        bound = socket.socket(self._family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            # Without it the port could not be had again while old connections linger.
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
