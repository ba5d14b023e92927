"""One request and its response, as a breaker sees them.

The outcome of an exchange is known

- when the wrapped transport raises: a failure, unless the error was caused locally,
- when the headers arrive, if `is_failed_result` says so: a failure, no matter what happens to the
  body,
- otherwise when the body ends: a success if it was read to its end or closed early by its reader, a
  failure if it broke off,
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
    """One request and its response. The first outcome settles it.

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

    def classify(self, response: "Response") -> None:
        """Settle if the headers of the response decide the outcome."""
        is_failed = self._guard.classifier.is_failed_result
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
        """Settle when the reader closes the body: a success, unless the reader was cancelled."""
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

    A reader that stopped at its own end marker may read the rest later, so that the connection can
    be reused. An error of that second reading is ignored.
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
            # The reader stopped early. The outcome is known when it closes the response.
            raise
        except BaseException as error:
            if not is_rest:
                self._exchange.settle(error)
            raise
        self._exchange.succeed()

    def close(self) -> None:
        """Close the body; an error of closing it is the outcome."""
        try:
            self._stream.close()
        except BaseException as error:
            self._exchange.settle(error)
            raise
        self._exchange.close()


class AsyncBody(AsyncStream):
    """The same for an asynchronous response."""

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
            # The reader stopped early. The outcome is known when it closes the response.
            raise
        except BaseException as error:
            if not is_rest:
                self._exchange.settle(error)
            raise
        self._exchange.succeed()

    async def aclose(self) -> None:
        """Close the body; an error of closing it is the outcome."""
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
