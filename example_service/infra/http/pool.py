"""Frees the places in httpcore's connection pool that cancelled requests leave taken.

With httpcore 1.0.9, the last release so far, a place is lost for ever when a request is cancelled

- after a connection was assigned to it, before it runs on it
  (https://github.com/encode/httpcore/issues/1093), or
- while the answer or a connection is being closed, for its shields hold only against anyio's
  cancellation and not against that of `asyncio.timeout` and `Task.cancel`. A connection that was
  being closed then stays open as well.

Once as many places are lost as there are, every request fails with `PoolTimeout` until the process
ends, however healthy the other side is. An outage, where many requests wait and then end together,
is just when it happens.

This concerns httpx alone: httpcore2, the connection pool of httpx2, keeps its places without help.
Remove this module, and its use in `infra/http/client.py`, when the service's client moves to
httpx2, or with the first release of httpcore on which `tests/unit/infra/http/test_pool.py` passes
with the plain transport.
"""

# ruff: noqa: SLF001
# No public API says which connection serves which request, or lets a pool look for lost places. The
# tests lose places on purpose, and fail should a release of httpx or httpcore rename what is used
# here.

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from httpcore._async.connection_pool import AsyncConnectionPool, PoolByteStream
from httpcore._async.interfaces import AsyncConnectionInterface


class ReclaimingTransport(httpx.AsyncBaseTransport):
    """Sends through a transport, whose pool it makes take back the places it has lost.

    Args:
        transport: What sends. It speaks HTTP/1.1 only, where one connection serves one request at
            a time.
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
        """Send a request and return its answer, whose body is still to be read."""
        response = await self._transport.handle_async_request(request)
        stream: Any = response.stream
        # A test that stands in for the pool answers with another stream.
        if isinstance(getattr(stream, "_httpcore_stream", None), PoolByteStream):
            response.stream = _Body(stream, self)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
        await asyncio.gather(*self._closing)

    async def forget(self, request: Any) -> None:
        """Give the place of a request to the next one, if the request still has it."""
        if request in self._pool._requests:
            self._pool._requests.remove(request)
            await self._close_to_the_end(self._reclaim_and_assign())

    def _reclaim_and_assign(self) -> list[AsyncConnectionInterface]:
        """Also return the connections that are neither idle nor in use, to be closed.

        The pool calls this when a request looks for a place and when one ends.
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
        """Close connections in a task that the caller's cancellation does not reach."""
        if closing:
            task = asyncio.create_task(self._close(closing))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            await asyncio.shield(task)


class _Body(httpx.AsyncByteStream):
    """The body of an answer, after which the pool forgets the request however it ended."""

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
