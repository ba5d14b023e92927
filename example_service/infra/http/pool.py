"""Reclaims the connections that httpcore's pool loses when requests are cancelled.

httpcore 1.0.9, the latest release, loses a slot of its pool permanently if a request is cancelled

- after a connection was assigned to it and before it has started to use it
  (https://github.com/encode/httpcore/issues/1093), or
- while a response or a connection is being closed, because its shields protect against the
  cancellation of anyio, but not against `asyncio.timeout` and `Task.cancel`. The connection that
  was being closed then stays open as well.

Once all slots are lost, every request fails with `PoolTimeout` until the process ends, even if the
server is healthy. This is likely in an outage, where many requests wait and then time out together.

Only httpx is affected: httpcore2, the connection pool of httpx2, does not lose slots. Remove this
module, and its use in `infra/http/client.py`, when the service moves to httpx2, or with the first
release of httpcore on which `tests/unit/infra/http/test_pool.py` passes with the plain transport.
"""

# ruff: noqa: SLF001
# No public API says which connection serves which request, or makes a pool look for lost slots. The
# tests lose slots on purpose, so they fail if httpx or httpcore rename a private name used here.

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from httpcore._async.connection_pool import AsyncConnectionPool, PoolByteStream
from httpcore._async.http11 import AsyncHTTP11Connection, HTTPConnectionState
from httpcore._async.interfaces import AsyncConnectionInterface


class ReclaimingTransport(httpx.AsyncBaseTransport):
    """Sends requests through another transport, and reclaims the slots that its pool has lost.

    Args:
        transport: The transport that sends the requests. It must use HTTP/1.1, where a connection
            serves one request at a time.
    """

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self._transport = transport
        self._pool: AsyncConnectionPool = transport._pool
        self._assign = self._pool._assign_requests_to_connections
        self._close = self._pool._close_connections
        self._closing: set[asyncio.Task[None]] = set()
        self._pool._assign_requests_to_connections = self._reclaim_and_assign  # type: ignore[method-assign]
        self._pool._close_connections = self._close_to_the_end  # type: ignore[method-assign]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response. Its body has not been read yet."""
        response = await self._transport.handle_async_request(request)
        stream: Any = response.stream
        # A test that replaces the pool returns another kind of stream.
        if isinstance(getattr(stream, "_httpcore_stream", None), PoolByteStream):
            response.stream = _Body(stream, self)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
        await asyncio.gather(*self._closing)

    async def forget(self, request: Any) -> None:
        """Release the slot of a request, if it still has one."""
        if request in self._pool._requests:
            self._pool._requests.remove(request)
            await self._close_to_the_end(self._reclaim_and_assign())

    def _reclaim_and_assign(self) -> list[AsyncConnectionInterface]:
        """Assign connections to requests. Returns the connections that must be closed.

        These include the lost connections, which are neither idle nor in use. The pool calls this
        when a request starts waiting for a connection and when one ends.
        """
        in_use = {id(request.connection) for request in self._pool._requests}
        lost = [
            connection
            for connection in self._pool._connections
            if id(connection) not in in_use
            and not connection.is_idle()
            and not connection.is_closed()
        ]
        for connection in lost:
            self._pool._connections.remove(connection)
        return lost + self._assign()

    async def _close_to_the_end(self, closing: list[AsyncConnectionInterface]) -> None:
        """Close connections in a separate task, which is not cancelled with the caller."""
        if closing:
            for connection in closing:
                _mark_as_closed(connection)
            task = asyncio.create_task(self._close(closing))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            await asyncio.shield(task)


def _mark_as_closed(connection: AsyncConnectionInterface) -> None:
    """Send requests that were assigned to a connection to another one.

    An idle connection may expire between its assignment to a request and the start of the request.
    If that started before the connection is closed, it would be cut off.
    """
    inner: Any = connection
    while inner is not None:
        if isinstance(inner, AsyncHTTP11Connection):
            inner._state = HTTPConnectionState.CLOSED
        inner = getattr(inner, "_connection", None)


class _Body(httpx.AsyncByteStream):
    """The body of a response. Closing it always releases the slot of the request."""

    def __init__(self, stream: Any, transport: ReclaimingTransport) -> None:
        self._stream = stream
        self._transport = transport

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._transport.forget(self._stream._httpcore_stream._pool_request)
