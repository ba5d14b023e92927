"""A transport for httpx and httpx2 that stops calling failing origins.

    TransportError    CircuitOpenError
           └──────┬──────────┘
      CircuitOpenTransportError    a request was refused; nothing was sent

`httpx_exchange` describes when the outcome of a request is known. Everything here works with either
of the two libraries, and with both.
"""

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from example_service.infra.resilience.breaker_set import BreakerSet
from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.httpx_classes import (
    LOCAL_ERRORS,
    TRANSPORT_ERRORS,
    TRANSPORTS,
    TransportBase,
    TransportErrorBase,
)
from example_service.infra.resilience.httpx_exchange import AsyncBody, Body, Exchange
from example_service.infra.resilience.validation import check_callable, check_instance, check_number

if TYPE_CHECKING:
    from example_service.infra.resilience.httpx_classes import Request, Response, Transport

# A host name has at most 253 characters. Longer ones may share a breaker.
_ORIGIN_LENGTH: Final = 300


class CircuitOpenTransportError(TransportErrorBase, CircuitOpenError):
    """A circuit breaker refused a request; nothing was sent.

    It has the attributes of `CircuitOpenError`, and `request` like every error of httpx.

    Args:
        arguments: Those of `CircuitOpenError`: only a message, or breaker name, state, seconds to
            wait and reason.
        request: The request that was refused.
    """

    def __init__(self, *arguments: Any, request: Any = None) -> None:
        super().__init__("", request=request)
        self.args = arguments


def origin_of(request: "Request") -> str:
    """The origin that a request goes to, such as `https://api.example.com:8443`.

    Scheme and host are in lower case, an international host name is in its ASCII form, and the
    scheme's default port is left out. At most 300 characters.
    """
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"[:_ORIGIN_LENGTH]


def is_upstream_failure(error: Exception) -> bool:
    """Whether an error means that the other side failed; for use as `is_failure`.

    An invalid request, an exhausted connection pool, and the refusal of another breaker do not mean
    that. In an exception group, one error that does is enough.
    """
    if isinstance(error, ExceptionGroup):
        return any(is_upstream_failure(inner) for inner in error.exceptions)
    local_errors = (*LOCAL_ERRORS, CircuitOpenError)
    return isinstance(error, TRANSPORT_ERRORS) and not isinstance(error, local_errors)


def is_failed_response(response: "Response") -> bool:
    """Whether a response means that the origin cannot serve: status 429, or 500 and above."""
    return (
        response.status_code == HTTPStatus.TOO_MANY_REQUESTS
        or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


class CircuitBreakerTransport(TransportBase):
    """Sends requests through another transport, under a circuit breaker for each origin.

    Like `httpx.MockTransport` it supports synchronous and asynchronous clients, of httpx and of
    httpx2: it can be used wherever the wrapped transport can. Put it around all other wrapping
    transports, so that a refused request reaches none of them. Safe to use from any thread.

    Args:
        transport: The transport that sends the requests. It is closed together with this one.
        key: Returns the name of the breaker for a request; requests with the same name share a
            breaker. The names appear in logs and metrics, so they should be few, short and free of
            secrets.
        breakers: Breakers to share with another transport; None creates a new set from
            `max_breakers` and `parameters`, like `transport_breakers`.
        max_breakers: Limit of breakers; None means 256. See `BreakerSet`.
        max_retry_after_seconds: A failed response with a `Retry-After` opens the circuit at once,
            for as long as it asks but for at most this many seconds, unless the breaker's
            `open_for` returns a wait. None ignores the header.
        parameters: Parameters of every `CircuitBreaker` created here. By default its
            `expected_exception` is the library's `TransportError` and `ssl.SSLError`, its
            `is_failure` is `is_upstream_failure`, and its `is_failed_result`, which sees the status
            and headers of a response before its body is read, is `is_failed_response`.

    Raises:
        TypeError: A value is of the wrong type, there is no such parameter, or it would have no
            effect together with `breakers`.
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
        made: Self = object.__new__(_subclass_for(transport, cls))
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
        if not any(isinstance(transport, classes) for classes in TRANSPORTS):
            raise TypeError(f"transport must be a transport of httpx, not {transport!r}")
        check_callable("key", key)
        if breakers is not None:
            check_instance("breakers", breakers, BreakerSet)
        if max_breakers is not None:
            parameters["max_breakers"] = max_breakers
        if breakers is not None and parameters:
            raise TypeError(
                f"{', '.join(parameters)} would have no effect together with breakers; "
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
        """The breaker for such a request, created if there is none."""
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
            exchange.classify(response)
        except BaseException:
            response.close()
            raise
        if not exchange.is_settled:
            response.stream = Body(response.stream, exchange)
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
            exchange.classify(response)
        except BaseException:
            await response.aclose()
            raise
        if not exchange.is_settled:
            response.stream = AsyncBody(response.stream, exchange)
        return response

    def _begin(self, request: "Request") -> "Exchange":
        breaker = self.breaker_for(request)
        try:
            permit = breaker.acquire()
        except CircuitOpenError as refusal:
            raise CircuitOpenTransportError(*refusal.args, request=request) from None
        return Exchange(breaker, permit, request, self._max_retry_after_seconds)

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


def _subclass_for(transport: object, kind: Any) -> Any:
    """A subclass of `kind` that is a transport of the same library as `transport`."""
    libraries = (classes for classes in TRANSPORTS if isinstance(transport, classes))
    return _subclass(kind, *chain.from_iterable(libraries))


@lru_cache(maxsize=64)
def _subclass(*bases: type) -> type:
    return type(bases[0].__name__, bases, {"__module__": bases[0].__module__})


def transport_breakers(**parameters: Any) -> BreakerSet:
    """Create breakers that several transports can share, with the defaults of a transport.

    Args:
        parameters: `max_breakers`, and parameters of every `CircuitBreaker`.
    """
    defaults = {
        "expected_exception": TRANSPORT_ERRORS,
        "is_failure": is_upstream_failure,
        "is_failed_result": is_failed_response,
    }
    return BreakerSet(**{**defaults, **parameters})
