"""A transport for httpx that stops calling an origin which fails.

    httpx.TransportError    CircuitOpenError
              └──────┬──────────────┘
          CircuitOpenTransportError    a request was refused; nothing was sent

The outcome of an exchange is known

- when the wrapped transport raises: a failure, unless the fault is our own,
- with the headers of a response whose status says that the origin is failing: a failure, whatever
  becomes of its body,
- else when its body ends: read to its end it is a success, cut short it is a failure, and closed
  early by its reader it is neither.

Until then the exchange holds its permit.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self

import httpx

from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.retry_after import (
    AnnouncedWait,
    announced_seconds,
    announcing,
)
from example_service.infra.resilience.rules.circuit_state import Closed, Open, Permit
from example_service.infra.resilience.validation import callable_error, count_error, number_error

logger = logging.getLogger("example_service.infra.resilience")

# No host name is longer than 253 characters, and what is no host name needs no name of its own.
_ORIGIN_LENGTH: Final = 300

_OWN_FAULTS: Final = (
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    CircuitOpenError,
)


class CircuitOpenTransportError(httpx.TransportError, CircuitOpenError):
    """A circuit breaker refused a request, of which nothing was sent.

    Attributes are those of `CircuitOpenError`, and `request` as on any error of httpx.

    Args:
        facts: What `CircuitOpenError` takes: a message alone, or breaker name, state, seconds to
            wait and reason.
        request: The request that was refused.
    """

    def __init__(self, *facts: Any, request: httpx.Request | None = None) -> None:
        super().__init__("", request=request)
        self.args = facts


def origin_of(request: httpx.Request) -> str:
    """The origin that a request goes to, such as `https://api.example.com:8443`.

    Scheme and host are in lower case, an international host name is in its ASCII form, and the
    scheme's default port is left out. At most 300 characters.
    """
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"[:_ORIGIN_LENGTH]


def is_upstream_failure(error: Exception) -> bool:
    """Whether an error of a transport speaks against the other side.

    A request that is wrong in itself, a connection pool of ours that is used up, and the refusal
    of another breaker do not.
    """
    return isinstance(error, httpx.TransportError) and not isinstance(error, _OWN_FAULTS)


def is_failed_response(response: httpx.Response) -> bool:
    """Whether a response means that the origin cannot serve: status 429, or 500 and above."""
    return (
        response.status_code == HTTPStatus.TOO_MANY_REQUESTS
        or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


class CircuitBreakerTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Sends requests through another transport, under a circuit breaker for each origin.

    Like `httpx.MockTransport` it serves both kinds of client: it can be used wherever the wrapped
    transport can. It belongs outside of other transports that wrap one, so that a refused request
    reaches none of them. Safe to use from any thread.

    Args:
        transport: What sends the requests. It is closed with this one.
        key: Names the breaker that guards a request; requests of equal names share one. The
            names appear in logs and metrics: they are to be few, short and free of secrets.
        max_breakers: How many breakers are kept at most. A further name takes the place of the
            breaker that was not used for the longest time among those that are closed and idle,
            or else among those that are idle and whose open wait is over.
        max_retry_after_seconds: Seconds up to which the `Retry-After` of a failed response that
            opens a circuit becomes its open wait; a longer one counts as that long. None leaves
            the header alone.
        parameters: Parameters of every `CircuitBreaker` made here. By default its
            `expected_exception` is `httpx.TransportError`, its `is_failure` is
            `is_upstream_failure` and its `is_failed_result`, which sees status and headers of a
            response before its body is read, `is_failed_response`.

    Raises:
        TypeError: A value is of the wrong type, or there is no such parameter.
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport,
        *,
        key: Callable[[httpx.Request], str] = origin_of,
        max_breakers: int = 256,
        max_retry_after_seconds: float | None = None,
        **parameters: Any,
    ) -> None:
        if not isinstance(transport, (httpx.BaseTransport, httpx.AsyncBaseTransport)):
            raise TypeError(f"transport must be a transport of httpx, not {transport!r}")
        if error := (
            callable_error("key", key)
            or count_error("max_breakers", max_breakers)
            or (
                max_retry_after_seconds is not None
                and number_error("max_retry_after_seconds", max_retry_after_seconds)
            )
        ):
            raise error
        self._transport: Any = transport
        self._key = key
        self._max_retry_after_seconds = max_retry_after_seconds
        self._breakers = _Breakers(
            max_breakers,
            _parameters(parameters, is_told_to_wait=max_retry_after_seconds is not None),
        )

    def breaker_for(self, request: httpx.Request) -> CircuitBreaker:
        """The breaker that guards such a request, made if need be."""
        return self._breakers.named(self._key(request))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, whose body is still to be read.

        Raises:
            CircuitOpenTransportError: The circuit refused; nothing was sent.
        """
        exchange = self._begin(request)
        try:
            response: httpx.Response = self._transport.handle_request(request)
        except BaseException as error:
            exchange.settle_error(error)
            raise
        try:
            exchange.judge(response)
        except BaseException:
            response.close()
            raise
        if not exchange.is_settled:
            response.stream = _Body(response.stream, exchange)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, whose body is still to be read.

        Raises:
            CircuitOpenTransportError: The circuit refused; nothing was sent.
        """
        exchange = self._begin(request)
        try:
            response: httpx.Response = await self._transport.handle_async_request(request)
        except BaseException as error:
            exchange.settle_error(error)
            raise
        try:
            exchange.judge(response)
        except BaseException:
            await response.aclose()
            raise
        if not exchange.is_settled:
            response.stream = _AsyncBody(response.stream, exchange)
        return response

    def _begin(self, request: httpx.Request) -> "_Exchange":
        breaker = self.breaker_for(request)
        try:
            permit = breaker._take_permit()
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


class _Breakers:
    """The breakers of one transport, by name, the least recently used first.

    Args:
        limit: How many are kept at most.
        parameters: What each is made with.
    """

    def __init__(self, limit: int, parameters: dict[str, Any]) -> None:
        self._limit = limit
        self._parameters = parameters
        self._lock = Lock()
        self._by_name: OrderedDict[str, CircuitBreaker] = OrderedDict()
        self._was_full = False

    def named(self, name: str) -> CircuitBreaker:
        """The breaker of a name, made if need be.

        Where every place is taken by a breaker that must stay, it is one for this call alone,
        which lets it pass.
        """
        with self._lock:
            breaker = self._by_name.get(name)
            if breaker is not None:
                self._by_name.move_to_end(name)
                return breaker
            if len(self._by_name) < self._limit or self._make_room():
                breaker = CircuitBreaker(name, **self._parameters)
                self._by_name[name] = breaker
                return breaker
            is_news, self._was_full = not self._was_full, True
        if is_news:
            logger.warning(
                "None of the %d circuit breakers of a transport is closed and idle, so that '%s' is"
                " not guarded; it is logged only once",
                self._limit,
                name,
                extra={"breaker": name},
            )
        return CircuitBreaker(name, **{**self._parameters, "registry": None})

    def _make_room(self) -> bool:
        """Let go of a breaker that can be spared, if there is one. Requires the lock.

        Nothing else holds it as a rule, so that the registry and the metrics lose it too. A
        request that has just looked it up and not yet been admitted counts on it all the same, and
        is the last to do so.
        """
        for is_spare in (_is_closed, _is_past_its_wait):
            for name, breaker in self._by_name.items():
                machine = breaker._machine
                if machine.mode is None and is_spare(breaker) and not breaker.in_flight:
                    del self._by_name[name]
                    return True
        return False


# Neither lets the time act on the state, for that would tell listeners while the lock is held.


def _is_closed(breaker: CircuitBreaker) -> bool:
    return isinstance(breaker._machine.phase, Closed)


def _is_past_its_wait(breaker: CircuitBreaker) -> bool:
    phase = breaker._machine.phase
    return not isinstance(phase, Open) or breaker._clock() >= phase.until


class _Exchange:
    """One request and its response, as the breaker sees them: settled once, by whoever is first.

    Args:
        breaker: Who is told the outcome.
        permit: What it has given out.
        request: What was asked.
        max_retry_after_seconds: See `CircuitBreakerTransport`.
    """

    __slots__ = ("_breaker", "_max_retry_after_seconds", "_permits", "_request")

    def __init__(
        self,
        breaker: CircuitBreaker,
        permit: Permit,
        request: httpx.Request,
        max_retry_after_seconds: float | None,
    ) -> None:
        self._breaker = breaker
        # Taken from a list because that is atomic: the body may be read in one thread and closed
        # in another.
        self._permits = [permit]
        self._request = request
        self._max_retry_after_seconds = max_retry_after_seconds

    @property
    def is_settled(self) -> bool:
        """Whether the outcome is known."""
        return not self._permits

    def judge(self, response: httpx.Response) -> None:
        """Settle with the headers of the response, where they tell the outcome."""
        is_failed = self._breaker.is_failed_result
        try:
            response.request = self._request
            failed = is_failed is not None and is_failed(response)
        except BaseException:
            self.release()
            raise
        if failed:
            with announcing(self._announced_seconds(response)):
                self._breaker._fail(self._permits.pop(), None)
        # A response made from bytes is closed already, and nobody will close it once more.
        elif response.is_closed or _has_no_body(response):
            self.succeed()

    def succeed(self) -> None:
        """The body was read to its end."""
        if (permit := self._take()) is not None:
            self._breaker._succeed(permit)

    def settle_error(self, error: BaseException) -> None:
        """The transport, or the body, has raised."""
        if (permit := self._take()) is not None:
            self._breaker._settle_error(permit, error)

    def release(self) -> None:
        """The reader has closed the body before its end."""
        if (permit := self._take()) is not None:
            self._breaker._release(permit)

    def _announced_seconds(self, response: httpx.Response) -> float | None:
        limit, headers = self._max_retry_after_seconds, response.headers
        if limit is None:
            return None
        seconds = announced_seconds(headers.get("Retry-After", ""), headers.get("Date", ""))
        return None if seconds is None else min(seconds, limit)

    def _take(self) -> Permit | None:
        try:
            return self._permits.pop()
        except IndexError:
            return None


class _Body(httpx.SyncByteStream):
    """The body of a response, which tells how it ends."""

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except GeneratorExit:
            # Its reader has gone. It also closes the response, and may do so later.
            raise
        except BaseException as error:
            self._exchange.settle_error(error)
            raise
        self._exchange.succeed()

    def close(self) -> None:
        try:
            self._stream.close()
        except BaseException as error:
            self._exchange.settle_error(error)
            raise
        self._exchange.release()


class _AsyncBody(httpx.AsyncByteStream):
    """The body of a response, which tells how it ends."""

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except GeneratorExit:
            # Its reader has gone. It also closes the response, and may do so later.
            raise
        except BaseException as error:
            self._exchange.settle_error(error)
            raise
        self._exchange.succeed()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except BaseException as error:
            self._exchange.settle_error(error)
            raise
        self._exchange.release()


def _has_no_body(response: httpx.Response) -> bool:
    """Whether the response ends with its headers (RFC 9110, section 6.4.1)."""
    return (
        response.request.method == "HEAD"
        or response.status_code < HTTPStatus.OK
        or response.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        or response.headers.get("Content-Length") == "0"
    )


def _parameters(given: dict[str, Any], *, is_told_to_wait: bool) -> dict[str, Any]:
    """The parameters of every breaker of a transport.

    Raises:
        TypeError: A value is of the wrong type, or there is no such parameter.
        ValueError: A value is out of range.
    """
    parameters: dict[str, Any] = {
        "expected_exception": httpx.TransportError,
        "is_failure": is_upstream_failure,
        "is_failed_result": is_failed_response,
        **given,
        "listeners": tuple(given.get("listeners", ())),
    }
    trial = CircuitBreaker("trial", **{**parameters, "registry": None})
    if is_told_to_wait:
        parameters["backoff"] = AnnouncedWait.instead_of(trial.backoff)
    return parameters
