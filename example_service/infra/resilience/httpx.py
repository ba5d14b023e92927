"""A transport for httpx and httpx2 that stops calling an origin which fails.

    TransportError    CircuitOpenError
           └──────┬──────────┘
      CircuitOpenTransportError    a request was refused; nothing was sent

The outcome of an exchange is known

- when the wrapped transport raises: a failure, unless the fault is on this side,
- with the headers of a response whose status says that the origin is failing: a failure, whatever
  becomes of its body,
- else when its body ends: read to its end, or closed early by its reader, it is a success; cut
  short it is a failure.

Until then the exchange keeps its permit. Everything here works with either of the two libraries,
and with both.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from example_service.infra.resilience.breaker_set import BreakerSet
from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.retry_after import announced_seconds
from example_service.infra.resilience.rules.phases import Permit
from example_service.infra.resilience.validation import check_callable, check_instance, check_number

if TYPE_CHECKING:
    # A type checker takes a library that is not installed for `Any`.
    import httpx  # type: ignore[import-not-found, unused-ignore]
    import httpx2  # type: ignore[import-not-found, unused-ignore]

    Request: TypeAlias = httpx.Request | httpx2.Request
    Response: TypeAlias = httpx.Response | httpx2.Response
    Transport: TypeAlias = (
        httpx.BaseTransport
        | httpx.AsyncBaseTransport
        | httpx2.BaseTransport
        | httpx2.AsyncBaseTransport
    )

    # What the two libraries do not agree on is overridden below.
    class _OfHttpx(httpx.BaseTransport, httpx.AsyncBaseTransport): ...  # type: ignore[misc, unused-ignore]

    class _OfHttpx2(httpx2.BaseTransport, httpx2.AsyncBaseTransport): ...  # type: ignore[misc, unused-ignore]

    class _Transport(_OfHttpx, _OfHttpx2): ...  # type: ignore[misc, unused-ignore]

    class _SyncStream(httpx.SyncByteStream, httpx2.SyncByteStream): ...  # type: ignore[misc, unused-ignore]

    class _AsyncStream(httpx.AsyncByteStream, httpx2.AsyncByteStream): ...  # type: ignore[misc, unused-ignore]

    class _TransportError(httpx.TransportError, httpx2.TransportError):  # type: ignore[misc, unused-ignore]
        _request: Any
        request: Any

    _TRANSPORTS: tuple[tuple[type, type], ...]
    _TRANSPORT_ERRORS: tuple[type[Exception], ...]
    _OWN_FAULTS: tuple[type[Exception], ...]
else:
    # Both libraries test for their own classes, so ours derive from those of each. A transport
    # does so from those of one alone, because a client may refuse what is of the other.
    # Once each, because `httpx2.alias_httpx` makes them one.
    _LIBRARIES = list(
        dict.fromkeys(import_module(name) for name in ("httpx", "httpx2") if find_spec(name))
    )
    if not _LIBRARIES:
        raise ModuleNotFoundError("the circuit breaker's transport needs httpx or httpx2")

    def _both(name: str, *classes: str) -> type:
        bases = tuple(getattr(library, one) for library in _LIBRARIES for one in classes)
        return bases[0] if len(bases) == 1 else type(name, bases, {})

    _Transport = object
    _SyncStream = _both("_SyncStream", "SyncByteStream")
    _AsyncStream = _both("_AsyncStream", "AsyncByteStream")
    _TransportError = _both("_TransportError", "TransportError")
    _TRANSPORTS = tuple(
        (library.BaseTransport, library.AsyncBaseTransport) for library in _LIBRARIES
    )
    _TRANSPORT_ERRORS = tuple(library.TransportError for library in _LIBRARIES)
    # Faults of this side: a wrong request, or a connection pool that is used up.
    _OWN_FAULTS = tuple(
        getattr(library, name)
        for library in _LIBRARIES
        for name in ("LocalProtocolError", "PoolTimeout", "UnsupportedProtocol")
    )

# No host name is longer than 253 characters, and anything longer needs no breaker of its own.
_ORIGIN_LENGTH: Final = 300


class CircuitOpenTransportError(_TransportError, CircuitOpenError):
    """A circuit breaker refused a request; nothing of it was sent.

    It has the attributes of `CircuitOpenError`, and `request` as every error of httpx.

    Args:
        facts: What `CircuitOpenError` takes: a message alone, or breaker name, state, seconds to
            wait and reason.
        request: The request that was refused.
    """

    def __init__(self, *facts: Any, request: Any = None) -> None:
        super().__init__("", request=request)
        self.args = facts


def origin_of(request: "Request") -> str:
    """The origin that a request goes to, such as `https://api.example.com:8443`.

    Scheme and host are in lower case, an international host name is in its ASCII form, and the
    scheme's default port is left out. At most 300 characters.
    """
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"[:_ORIGIN_LENGTH]


def is_upstream_failure(error: Exception) -> bool:
    """Whether an error means that the other side failed; for use as `is_failure`.

    A wrong request, a connection pool that is used up, and the refusal of another breaker do not
    mean that. In an exception group, one error that does is enough.
    """
    if isinstance(error, ExceptionGroup):
        return any(is_upstream_failure(one) for one in error.exceptions)
    own_faults = (*_OWN_FAULTS, CircuitOpenError)
    return isinstance(error, _TRANSPORT_ERRORS) and not isinstance(error, own_faults)


def is_failed_response(response: "Response") -> bool:
    """Whether a response means that the origin cannot serve: status 429, or 500 and above."""
    return (
        response.status_code == HTTPStatus.TOO_MANY_REQUESTS
        or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


class CircuitBreakerTransport(_Transport):
    """Sends requests through another transport, under a circuit breaker for each origin.

    Like `httpx.MockTransport` it serves both kinds of client, of httpx and of httpx2: it can be
    used wherever the wrapped transport can. Put it outside other transports that wrap one, so that
    a refused request reaches none of them. Safe to use from any thread.

    Args:
        transport: What sends the requests. It is closed with this one.
        key: Names the breaker that guards a request; requests of equal names share one. The names
            appear in logs and metrics, so they should be few, short and free of secrets.
        breakers: Breakers to share with another transport; None for a set of its own, which
            `transport_breakers` creates from `max_breakers` and `parameters`.
        max_breakers: How many breakers are kept at most; None means 256. See `BreakerSet`.
        max_retry_after_seconds: A failed response with a `Retry-After` opens the circuit at once,
            for the seconds that it announces and at most this many, unless the breaker's `open_for`
            has an answer. None ignores the header.
        parameters: Parameters of every `CircuitBreaker` created here. By default its
            `expected_exception` is the library's `TransportError`, its `is_failure` is
            `is_upstream_failure`, and its `is_failed_result`, which sees the status and headers of
            a response before its body is read, is `is_failed_response`.

    Raises:
        TypeError: A value is of the wrong type, there is no such parameter, or it would have no
            effect beside `breakers`.
        ValueError: A value is out of range.

    Example:
        ```python
        import httpx

        from example_service.infra.resilience.httpx import CircuitBreakerTransport

        transport = CircuitBreakerTransport(
            httpx.AsyncHTTPTransport(retries=1), failure_threshold=3, max_retry_after_seconds=120.0
        )
        client = httpx.AsyncClient(transport=transport)
        ```
    """

    def __new__(cls, transport: Any = None, **_: Any) -> Self:
        """Make a transport of the same library as the wrapped one."""
        made: Self = object.__new__(_in_the_library_of(transport, cls))
        return made

    def __init__(
        self,
        transport: "Transport",
        *,
        key: Callable[[Any], str] = origin_of,
        breakers: BreakerSet | None = None,
        max_breakers: int | None = None,
        max_retry_after_seconds: float | None = None,
        **parameters: Any,
    ) -> None:
        if not any(isinstance(transport, classes) for classes in _TRANSPORTS):
            raise TypeError(f"transport must be a transport of httpx, not {transport!r}")
        check_callable("key", key)
        if breakers is not None:
            check_instance("breakers", breakers, BreakerSet)
        if max_breakers is not None:
            parameters["max_breakers"] = max_breakers
        if breakers is not None and parameters:
            raise TypeError(
                f"{', '.join(parameters)} would have no effect beside breakers; "
                "give it to transport_breakers(...) instead"
            )
        if max_retry_after_seconds is not None:
            check_number("max_retry_after_seconds", max_retry_after_seconds)
        self._transport: Any = transport
        self._key = key
        self._max_retry_after_seconds = max_retry_after_seconds
        self._breakers = breakers or transport_breakers(**parameters)
        if max_retry_after_seconds is not None and self._breakers.is_failed_result is None:
            raise TypeError("max_retry_after_seconds would have no effect without is_failed_result")

    def breaker_for(self, request: "Request") -> CircuitBreaker:
        """The breaker that guards such a request, created if there is none."""
        return self._breakers.named(self._key(request))

    def handle_request(self, request: Any) -> Any:
        """Send a request and return its response, whose body is still to be read.

        Raises:
            CircuitOpenTransportError: The circuit refused; nothing was sent.
        """
        exchange = self._begin(request)
        try:
            response = self._transport.handle_request(request)
        except BaseException as error:
            exchange.settle(error)
            raise
        try:
            exchange.judge(response)
        except BaseException:
            response.close()
            raise
        if not exchange.is_settled:
            response.stream = _Body(response.stream, exchange)
        return response

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request and return its response, whose body is still to be read.

        Raises:
            CircuitOpenTransportError: The circuit refused; nothing was sent.
        """
        exchange = self._begin(request)
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException as error:
            exchange.settle(error)
            raise
        try:
            exchange.judge(response)
        except BaseException:
            await response.aclose()
            raise
        if not exchange.is_settled:
            response.stream = _AsyncBody(response.stream, exchange)
        return response

    def _begin(self, request: "Request") -> "_Exchange":
        breaker = self.breaker_for(request)
        try:
            permit = breaker.acquire()
        except CircuitOpenError as refusal:
            raise CircuitOpenTransportError(*refusal.args, request=request) from None
        return _Exchange(breaker, permit, request, self._max_retry_after_seconds)

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        """Close the wrapped transport."""
        self._transport.close()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._transport.aclose()


def _in_the_library_of(transport: object, kind: Any) -> Any:
    """A subclass of `kind` that is a transport of whatever library this one is of."""
    libraries = (classes for classes in _TRANSPORTS if isinstance(transport, classes))
    return _subclass(kind, *chain.from_iterable(libraries))


@lru_cache(maxsize=64)
def _subclass(*bases: type) -> type:
    return type(bases[0].__name__, bases, {"__module__": bases[0].__module__})


class _Exchange:
    """One request and its response, as the breaker sees them: settled once, by the first outcome.

    Args:
        breaker: What gave the permit.
        permit: What it gave.
        request: The request.
        max_retry_after_seconds: See `CircuitBreakerTransport`.
    """

    __slots__ = ("_breaker", "_max_retry_after_seconds", "_permits", "_request")

    def __init__(
        self,
        breaker: CircuitBreaker,
        permit: Permit,
        request: "Request",
        max_retry_after_seconds: float | None,
    ) -> None:
        self._breaker = breaker
        # A list, because taking from it is atomic: the body may be read in one thread and closed
        # in another.
        self._permits = [permit]
        self._request = request
        self._max_retry_after_seconds = max_retry_after_seconds

    @property
    def is_settled(self) -> bool:
        """Whether the outcome is known."""
        return not self._permits

    def judge(self, response: "Response") -> None:
        """Settle with the headers of the response, if they say the outcome."""
        is_failed = self._breaker.is_failed_result
        try:
            response.request = self._request
            failed = is_failed is not None and is_failed(response)
            seconds = self._seconds_to_open(response) if failed else None
        except BaseException:
            self._breaker.release(self._permits.pop())
            raise
        if failed:
            self._breaker.fail(self._permits.pop(), None, seconds)
        # A response created from bytes is closed already, and will not be closed again.
        elif response.is_closed or _has_no_body(response):
            self.succeed()

    def succeed(self) -> None:
        """The body was read to its end, or its reader needs no more of it."""
        if (permit := self._take()) is not None:
            self._breaker.succeed(permit)

    def close(self) -> None:
        """The reader has closed the body: it has read enough, unless it was interrupted."""
        error = sys.exception()
        if error is None or isinstance(error, (Exception, GeneratorExit)):
            self.succeed()
        elif (permit := self._take()) is not None:
            self._breaker.release(permit)

    def settle(self, error: BaseException) -> None:
        """The transport, or the body, has raised."""
        if (permit := self._take()) is not None:
            self._breaker.settle(permit, error)

    def _seconds_to_open(self, response: "Response") -> float | None:
        seconds = self._breaker.seconds_to_open(response)
        limit, headers = self._max_retry_after_seconds, response.headers
        if seconds is not None or limit is None:
            return seconds
        seconds = announced_seconds(headers.get("Retry-After", ""), headers.get("Date", ""))
        return None if seconds is None else min(seconds, limit)

    def _take(self) -> Permit | None:
        try:
            return self._permits.pop()
        except IndexError:
            return None


class _Body(_SyncStream):
    """The body of a response, which settles the exchange when it ends.

    A reader may begin again at what is left, after its own end marker, so that the connection can
    be used again. How that ends says nothing: it has what it needs.
    """

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
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
        try:
            self._stream.close()
        except BaseException as error:
            self._exchange.settle(error)
            raise
        self._exchange.close()


class _AsyncBody(_AsyncStream):
    """The same, of an asynchronous response."""

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
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


def transport_breakers(**parameters: Any) -> BreakerSet:
    """A set of breakers with the defaults of `CircuitBreakerTransport`, for transports that share.

    Args:
        parameters: `max_breakers`, and parameters of every `CircuitBreaker`.
    """
    defaults = {
        "expected_exception": _TRANSPORT_ERRORS,
        "is_failure": is_upstream_failure,
        "is_failed_result": is_failed_response,
    }
    return BreakerSet(**{**defaults, **parameters})
