"""Frees the places in httpcore's connection pool that cancelled requests leave taken.

With httpcore 1.0.9, the last release so far, a place is lost for ever when a request is cancelled

- after a connection was assigned to it, before it runs on it
  (https://github.com/encode/httpcore/issues/1093), or
- while the answer is being closed, for its shields hold only against anyio's cancellation and not
  against that of `asyncio.timeout` and `Task.cancel`.

Once as many places are lost as there are, every request fails with `PoolTimeout` until the process
ends, however healthy the other side is. An outage, where many requests wait and then end together,
is just when it happens.

This concerns httpx alone: httpcore2, the connection pool of httpx2, keeps its places without help.
Remove this module, and its use in `infra/http/client.py`, when the service's client moves to
httpx2, or with the first release of httpcore on which `tests/unit/infra/http/test_pool.py` passes
with the plain transport.
"""

# ruff: noqa: SLF001
# No public API says which connection serves which request. The tests lose places on purpose, and
# fail should a release of httpx or httpcore rename what is used here.

from collections.abc import AsyncIterator
from typing import Any

import httpcore
import httpx
from httpcore._async.connection_pool import PoolByteStream


class ReclaimingTransport(httpx.AsyncBaseTransport):
    """Sends through a transport, and takes back the places that its pool has lost.

    Args:
        transport: What sends. It speaks HTTP/1.1 only, where one connection serves one request at
            a time.
    """

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer, whose body is still to be read."""
        pool: httpcore.AsyncConnectionPool = self._transport._pool
        # A lost place does no harm before the others are taken.
        if len(pool._connections) >= pool._max_connections:
            await _reclaim(pool)
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException:
            await _reclaim(pool)
            raise
        stream: Any = response.stream
        # A test that stands in for the pool answers with another stream.
        if isinstance(getattr(stream, "_httpcore_stream", None), PoolByteStream):
            response.stream = _ReclaimingStream(stream, pool)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


class _ReclaimingStream(httpx.AsyncByteStream):
    """The body of an answer, after which the pool forgets the request however it ended."""

    def __init__(self, stream: Any, pool: httpcore.AsyncConnectionPool) -> None:
        self._stream = stream
        self._pool = pool

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            request = self._stream._httpcore_stream._pool_request
            if request in self._pool._requests:
                self._pool._requests.remove(request)
                await _reclaim(self._pool)


async def _reclaim(pool: httpcore.AsyncConnectionPool) -> None:
    """Drop the connections that are neither idle nor in use, and let waiting requests follow.

    A connection may be missed while further requests are about to find out that it is not free.
    It is found when the next request looks for a place.
    """
    in_use = {id(request.connection) for request in pool._requests}
    orphans = [
        connection
        for connection in pool._connections
        if id(connection) not in in_use and not connection.is_idle() and not connection.is_closed()
    ]
    if orphans:
        for connection in orphans:
            pool._connections.remove(connection)
        await pool._close_connections(orphans + pool._assign_requests_to_connections())
