"""An upstream whose answers the test decides, and both kinds of client for it."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self

import httpx

from example_service.infra.resilience import (
    CircuitBreakerRegistry,
)
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
)

URL = "https://api.test/rates"
ORIGIN = "https://api.test"
OTHER_URL = "https://other.test/"
OTHER_ORIGIN = "https://other.test"


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives in pieces and may break off.

    Args:
        chunks: The pieces.
        error: The error after the last piece.
        close_error: The error when it is closed.
    """

    def __init__(
        self,
        chunks: Iterable[bytes] = (b"one", b"two"),
        error: BaseException | None = None,
        close_error: BaseException | None = None,
    ) -> None:
        self.chunks = tuple(chunks)
        self.error = error
        self.close_error = close_error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        """Count the call, and raise the given error."""
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error

    async def aclose(self) -> None:
        """Count the call, and raise the given error."""
        self.close()


class Upstream:
    """Replaces every origin: answers by host, and records the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[httpx.Request] = []

    def answer(self, what: Any, url: str = URL) -> None:
        """From now on, answer with a status, a body or a response, or raise an error."""
        self.answers[httpx.URL(url).host] = what

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        answer = self.answers.get(request.url.host, 200)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Body):
            return httpx.Response(200, stream=answer)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(answer, content=b"answer")


class Way(Protocol):
    """A common interface for both kinds of client."""

    async def get(self, url: str = URL, method: str = "GET") -> httpx.Response:
        """Send a request, and read the answer."""
        ...

    def stream(self, url: str = URL, method: str = "GET") -> Any:
        """Send a request; the answer can be read in the block, and is closed after it."""
        ...

    async def read(self, response: httpx.Response) -> bytes:
        """Read the answer to its end."""
        ...

    async def read_first(self, response: httpx.Response) -> bytes:
        """Read the first piece of the answer, and drop the iterator."""
        ...


class SyncWay:
    """Through `httpx.Client`."""

    def __init__(self, transport: CircuitBreakerTransport) -> None:
        self.client = httpx.Client(transport=transport)

    async def get(self, url: str = URL, method: str = "GET") -> httpx.Response:
        """Send a request, and read the answer."""
        return self.client.request(method, url)

    @asynccontextmanager
    async def stream(self, url: str = URL, method: str = "GET") -> AsyncIterator[httpx.Response]:
        """Send a request; the answer can be read in the block."""
        with self.client.stream(method, url) as response:
            yield response

    async def read(self, response: httpx.Response) -> bytes:
        """Read the answer to its end."""
        return response.read()

    async def read_first(self, response: httpx.Response) -> bytes:
        """Read the first piece of the answer, and drop the iterator."""
        return next(response.iter_raw())


class AsyncWay:
    """Through `httpx.AsyncClient`."""

    def __init__(self, transport: CircuitBreakerTransport) -> None:
        self.client = httpx.AsyncClient(transport=transport)

    async def get(self, url: str = URL, method: str = "GET") -> httpx.Response:
        """Send a request, and read the answer."""
        return await self.client.request(method, url)

    @asynccontextmanager
    async def stream(self, url: str = URL, method: str = "GET") -> AsyncIterator[httpx.Response]:
        """Send a request; the answer can be read in the block."""
        async with self.client.stream(method, url) as response:
            yield response

    async def read(self, response: httpx.Response) -> bytes:
        """Read the answer to its end."""
        return await response.aread()

    async def read_first(self, response: httpx.Response) -> bytes:
        """Read the first piece of the answer, and drop the iterator."""
        pieces = response.aiter_raw()
        first = await anext(pieces)
        assert hasattr(pieces, "aclose")
        await pieces.aclose()
        return first


WAYS: dict[str, Callable[[CircuitBreakerTransport], Way]] = {"sync": SyncWay, "async": AsyncWay}


async def opened(way: Way, upstream: Upstream, url: str = URL) -> None:
    """Open the circuit of an origin with two answers of 503, which it keeps sending."""
    upstream.answer(503, url)
    for _ in range(2):
        await way.get(url)


def counts(registry: CircuitBreakerRegistry, name: str = ORIGIN) -> tuple[int, int, int]:
    """Failures, successes and calls in flight of a breaker."""
    breaker = registry.get(name)
    return breaker.total_failures, breaker.total_successes, breaker.in_flight


class Recording(httpx.MockTransport):
    """Records how it is entered, left and closed."""

    def __init__(self) -> None:
        super().__init__(lambda _: httpx.Response(200))
        self.calls: list[str] = []

    def __enter__(self) -> Self:
        self.calls.append("enter")
        return self

    def __exit__(self, *args: object) -> None:
        self.calls.append("exit")

    def close(self) -> None:
        """Record the call."""
        self.calls.append("close")

    async def __aenter__(self) -> Self:
        self.calls.append("aenter")
        return self

    async def __aexit__(self, *args: object) -> None:
        self.calls.append("aexit")

    async def aclose(self) -> None:
        """Record the call."""
        self.calls.append("aclose")
