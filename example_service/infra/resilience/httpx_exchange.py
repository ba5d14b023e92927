"""One request and its response, as a breaker sees them.

The outcome of an exchange is known

- when the wrapped transport raises: a failure, unless the fault is on this side,
- with the headers of a response whose status says that the origin is failing: a failure, whatever
  happens to its body,
- otherwise when its body ends: a success if it was read to its end or closed early by its reader, a
  failure if it was cut short,
- when the response is dropped without being closed: neutral.

Until then the exchange keeps its permit.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.httpx_classes import AsyncStream, SyncStream
from example_service.infra.resilience.pending_call import PendingCall
from example_service.infra.resilience.retry_after import announced_seconds
from example_service.infra.resilience.rules.phases import Permit

if TYPE_CHECKING:
    from example_service.infra.resilience.httpx_classes import Request, Response


class Exchange(PendingCall):
    """One request and its response, as the breaker sees them: settled once, by the first outcome.

    Args:
        breaker: The breaker that admitted the request.
        permit: The permit to hand back.
        request: The request.
        max_retry_after_seconds: See `CircuitBreakerTransport`.
    """

    __slots__ = ("_max_retry_after_seconds", "_request")

    def __init__(
        self,
        breaker: CircuitBreaker,
        permit: Permit,
        request: "Request",
        max_retry_after_seconds: float | None,
    ) -> None:
        super().__init__(breaker, permit)
        self._request = request
        self._max_retry_after_seconds = max_retry_after_seconds

    def judge(self, response: "Response") -> None:
        """Settle with the headers of the response, if they decide the outcome."""
        is_failed = self._guard.judge.is_failed_result
        try:
            response.request = self._request
            failed = is_failed is not None and is_failed(response)
            seconds = self._seconds_to_open(response) if failed else None
        except BaseException:
            self.release()
            raise
        if failed:
            self._guard.fail(self._permits.pop(), None, seconds)
        # A response created from bytes is closed already, and will not be closed again.
        elif response.is_closed or _has_no_body(response):
            self.succeed()

    def close(self) -> None:
        """The reader has closed the body: it has read enough, unless it was interrupted."""
        error = sys.exception()
        if error is None or isinstance(error, (Exception, GeneratorExit)):
            self.succeed()
        else:
            self.release()

    def _seconds_to_open(self, response: "Response") -> float | None:
        seconds = self._guard.seconds_to_open(response)
        limit, headers = self._max_retry_after_seconds, response.headers
        if seconds is not None or limit is None:
            return seconds
        seconds = announced_seconds(headers.get("Retry-After", ""), headers.get("Date", ""))
        return None if seconds is None else min(seconds, limit)


class Body(SyncStream):
    """The body of a response, which settles the exchange when it ends.

    After its own end marker, a reader may read the rest, so that the connection can be reused. The
    outcome of that says nothing, because the reader already has what it needs.
    """

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange
        self._is_begun = False

    def __iter__(self) -> Iterator[bytes]:
        is_rest, self._is_begun = self._is_begun, True
        try:
            yield from self._stream
        except GeneratorExit:
            # Its reader has gone. It also closes the response, and may do so later.
            raise
        except BaseException as error:
            if not is_rest:
                self._exchange.settle(error)
            raise
        self._exchange.succeed()

    def close(self) -> None:
        """Close the body; what it raises is the outcome."""
        try:
            self._stream.close()
        except BaseException as error:
            self._exchange.settle(error)
            raise
        self._exchange.close()


class AsyncBody(AsyncStream):
    """The same, of an asynchronous response."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange
        self._is_begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_rest, self._is_begun = self._is_begun, True
        try:
            async for chunk in self._stream:
                yield chunk
        except GeneratorExit:
            # Its reader has gone. It also closes the response, and may do so later.
            raise
        except BaseException as error:
            if not is_rest:
                self._exchange.settle(error)
            raise
        self._exchange.succeed()

    async def aclose(self) -> None:
        """Close the body; what it raises is the outcome."""
        try:
            await self._stream.aclose()
        except BaseException as error:
            self._exchange.settle(error)
            raise
        self._exchange.close()


def _has_no_body(response: "Response") -> bool:
    """Whether the response ends with its headers (RFC 9110, section 6.4.1)."""
    return (
        response.request.method == "HEAD"
        or response.status_code < HTTPStatus.OK
        or response.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        or response.headers.get("Content-Length") == "0"
    )
