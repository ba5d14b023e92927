"""The transport in the real SDKs of OpenAI and Anthropic, over real sockets.

They wrap the errors of a transport, read streams up to an end marker, and close connections
each in its own way. `docs/llm-clients.md` says how all of that counts.
"""

import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from inspect import isawaitable
from typing import Any, ClassVar, Protocol

import httpx2
import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.httpx import CircuitBreakerTransport, transport_breakers
from example_service.infra.resilience.testing import FakeClock, half_opened

pytestmark = pytest.mark.integration

# Loading the machine's certificates would take longer than everything else.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
HELLO: Any = [{"role": "user", "content": "Hello"}]
WORD = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}
MESSAGE = {
    "type": "message_start",
    "message": {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def event(name: str, data: object) -> bytes:
    """A server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n".encode()


BEGINNINGS = {
    "/v1/chat/completions": event("message", WORD),
    "/v1/messages": event("message_start", MESSAGE),
}
END_MARKERS = {
    "/v1/chat/completions": event("message", "[DONE]"),
    "/v1/messages": event("message_stop", {"type": "message_stop"}),
}


class Provider(BaseHTTPRequestHandler):
    """A provider of both APIs, which streams or refuses with a set status."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int]
    ending: ClassVar[str]
    requests: ClassVar[int]
    is_over: ClassVar[threading.Event]

    @classmethod
    def behave(cls, *, status: int = 200, ending: str = "whole") -> None:
        """Respond like this from now on."""
        cls.status, cls.ending, cls.requests = status, ending, 0
        cls.is_over = threading.Event()

    def do_POST(self) -> None:
        """Answer a request."""
        type(self).requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        if self.status != 200:
            body = json.dumps(OVERLOADED).encode()
            self.send_header("Retry-After", "30")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(BEGINNINGS[self.path])
        if self.ending == "error":
            self._chunk(event("error", OVERLOADED))
        elif self.ending != "broken":
            self._chunk(END_MARKERS[self.path])
        if self.ending == "held":
            self.is_over.wait(30.0)
        if self.ending in {"broken", "cut"}:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Ask(Protocol):
    """Asks the model for a stream, and reads it up to its end marker."""

    async def __call__(self) -> None:
        """Ask and read.

        Raises:
            openai.APIError: OpenAI's SDK reports an error.
            anthropic.AnthropicError: Anthropic's SDK reports an error.
        """
        ...


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """The provider, on a loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def origin(server: ThreadingHTTPServer) -> Iterator[str]:
    """The origin of the provider, which streams whole responses."""
    Provider.behave()
    yield f"http://127.0.0.1:{server.server_port}"
    Provider.is_over.set()


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


@pytest.fixture
def breakers(clock: FakeClock) -> Any:
    """The breakers of the transports."""
    return transport_breakers(failure_threshold=3, success_threshold=1, clock=clock, registry=None)


@pytest.fixture
def breaker(breakers: Any, origin: str) -> CircuitBreaker:
    """The provider's breaker."""
    named: CircuitBreaker = breakers.named(origin)
    return named


@pytest.fixture(params=["openai", "openai-sync", "anthropic", "anthropic-sync"])
async def ask(request: pytest.FixtureRequest, breakers: Any, origin: str) -> AsyncIterator[Ask]:
    """Ask through one of the four clients."""
    name = request.param.removesuffix("-sync")
    sdk: Any = import_module(name)
    is_sync = request.param.endswith("sync")
    wrapped: Any = httpx2.HTTPTransport if is_sync else httpx2.AsyncHTTPTransport
    transport = CircuitBreakerTransport(
        wrapped(verify=NO_CERTIFICATES), breakers=breakers, max_retry_after_seconds=60.0
    )
    prefix = "" if is_sync else "Async"
    http_client = getattr(sdk, f"Default{prefix}HttpxClient")(transport=transport, trust_env=False)
    parameters: dict[str, Any] = {"api_key": "secret", "max_retries": 0, "http_client": http_client}
    create: Callable[..., Any]
    if name == "openai":
        client = getattr(sdk, f"{prefix}OpenAI")(base_url=f"{origin}/v1", **parameters)
        create = client.chat.completions.create
    else:
        client = getattr(sdk, f"{prefix}Anthropic")(base_url=origin, **parameters)
        create = client.messages.create

    async def ask() -> None:
        limit = {} if name == "openai" else {"max_tokens": 9}
        stream = create(model="model", messages=HELLO, stream=True, **limit)
        if is_sync:
            with stream:
                for event in stream:
                    if getattr(event, "type", "") == "message_stop":
                        break
            return
        async with await stream as events:
            async for event in events:
                if getattr(event, "type", "") == "message_stop":
                    break

    yield ask
    closed = client.close()
    if isawaitable(closed):
        await closed


def errors_called(name: str) -> tuple[type[Exception], ...]:
    """The errors of this name in both SDKs.

    Importing the SDKs takes seconds, so only the processes that run these tests do it.
    """
    return tuple(getattr(import_module(sdk), name) for sdk in ("openai", "anthropic"))


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Failures, successes and calls in flight."""
    return breaker.total_failures, breaker.total_successes, breaker.in_flight


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_refusal_is_the_cause_of_the_error(
    ask: Ask, breaker: CircuitBreaker, status: int
) -> None:
    """One response with a wait opens the circuit, and the next call is not sent."""
    Provider.behave(status=status)
    with pytest.raises(errors_called("APIStatusError")):
        await ask()
    with pytest.raises(errors_called("APIConnectionError")) as raised:
        await ask()

    refusal = raised.value.__cause__
    assert isinstance(refusal, CircuitOpenError)
    assert (refusal.breaker_name, refusal.retry_after) == (breaker.name, 30.0)
    assert Provider.requests == 1


@pytest.mark.parametrize("ending", ["whole", "held", "cut"])
async def test_stream_is_a_success_at_its_end_marker(
    ask: Ask, breaker: CircuitBreaker, clock: FakeClock, ending: str
) -> None:
    """A probe closes the circuit, whatever the connection does after that."""
    Provider.behave(ending=ending)
    with half_opened(breaker, clock=clock):
        await ask()
        assert breaker.is_closed
        assert counts(breaker) == (0, 1, 0)


async def test_stream_that_breaks_off_is_a_failure(ask: Ask, breaker: CircuitBreaker) -> None:
    """Good headers are not a whole response."""
    Provider.behave(ending="broken")
    with pytest.raises((*errors_called("APIConnectionError"), httpx2.TransportError)):
        await ask()

    assert counts(breaker) == (1, 0, 0)


async def test_error_inside_a_stream_is_left_to_the_caller(
    ask: Ask, breaker: CircuitBreaker
) -> None:
    """To the transport, it is a response with status 200 that was read and closed."""
    Provider.behave(ending="error")
    with pytest.raises(errors_called("APIError"), match="Overloaded"):
        await ask()

    assert counts(breaker) == (0, 1, 0)
