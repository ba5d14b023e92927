"""A connection to a server, for tests of the protocol and of its transport."""

import asyncio
import contextvars
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.lifespan.off import LifespanOff
from uvicorn.server import ServerState

from example_service.api.request.proxies import RootPath
from example_service.server.protocol import ConnectionLimits, ProblemProtocol

HEAD_SECONDS = 30.0
SEND_SECONDS = 10.0
PROXY = "10.1.2.3"

_bound: contextvars.ContextVar[int | None] = contextvars.ContextVar("bound", default=None)

HOST = b"Host: service.test\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"

NO_CONTENT = (
    {"type": "http.response.start", "status": 204, "headers": []},
    {"type": "http.response.body"},
)


class RecordingTransport(asyncio.Transport):
    """Records what is written to it.

    Attributes:
        pieces: The bytes that were written, in the pieces in which they were sent.
        unsent: How many of these bytes the client has not received yet.
        ended: Whether the writing side is closed.
        closed: Whether both sides are closed.
        aborted: Whether it was closed without waiting for unsent bytes.
        reading: Whether bytes are read from it.
    """

    def __init__(self, peer: tuple[str, int]) -> None:
        super().__init__({"peername": peer})
        self.pieces: list[bytes] = []
        self.unsent = 0
        self.ended = False
        self.closed = False
        self.aborted = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Record the bytes."""
        assert not self.ended
        self.pieces.append(bytes(data))

    @property
    def written(self) -> bytes:
        """All bytes that were written."""
        return b"".join(self.pieces)

    def get_write_buffer_size(self) -> int:
        """The number of bytes that the client has not received yet."""
        return self.unsent

    def write_eof(self) -> None:
        """Note that the writing side is closed."""
        self.ended = True

    def close(self) -> None:
        """Note that the connection is closed."""
        self.ended = self.closed = True

    def abort(self) -> None:
        """Note that the connection is aborted."""
        self.ended = self.closed = self.aborted = True

    def is_closing(self) -> bool:
        """Whether the connection was closed."""
        return self.closed

    def pause_reading(self) -> None:
        """Note that reading is paused."""
        self._check_open()
        self.reading = False

    def resume_reading(self) -> None:
        """Note that reading has resumed."""
        self._check_open()
        self.reading = True

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("unable to perform operation; the handler is closed")


class SteppedLoop:
    """The running event loop, with a clock that only the test moves."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = 0.0

    def create_task(
        self, work: Coroutine[Any, Any, Any], *, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        """Create a task on the real loop."""
        return self._loop.create_task(work, context=context)

    def time(self) -> float:
        """The current time of the clock."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self._now += seconds


@dataclass
class Connection:
    """A connection to a server whose application records its requests.

    Attributes:
        keep_alive_seconds: How long the connection may be idle.
        max_connections: How many connections the server accepts.
        root_path: The path prefix of the service.
        client: The address of the client.
        response: The messages of the response to a path that has none of its own.
        state: The state that all connections of a server share.
        scopes: The scopes of the requests that reached the application.
        bodies: The bodies of those requests.
        seen_in_context: What each of these requests found in its context.
        loop: The event loop.
        may_answer: An event that the application waits for before it answers.
        protocol: The protocol under test.
    """

    keep_alive_seconds: int = 5
    max_connections: int = 100
    root_path: str = ""
    client: str = "192.0.2.1"
    response: Sequence[Mapping[str, Any]] = NO_CONTENT
    state: ServerState = field(default_factory=ServerState)
    scopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    seen_in_context: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Connect."""
        self.loop = SteppedLoop()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            ws="none",
            timeout_keep_alive=self.keep_alive_seconds,
            reset_contextvars=True,
        )
        config.load()
        self.state.default_headers = [(b"date", b"today")]
        self.transport = RecordingTransport((self.client, 50000))
        self.protocol = ProblemProtocol(
            config,
            self.state,
            LifespanOff(config).state,
            limits=ConnectionLimits(self.max_connections, HEAD_SECONDS, SEND_SECONDS),
            path_prefix=RootPath([PROXY], self.root_path),
        )
        self.protocol.loop = self.loop  # type: ignore[assignment]
        self.protocol.connection_made(self.transport)

    async def send(self, *pieces: bytes) -> None:
        """Send data piece by piece, and let the application answer in between."""
        for piece in pieces:
            if not self.transport.closed:
                self.protocol.data_received(piece)
            await self.settle()

    async def settle(self, turns: int = 5) -> None:
        """Run the event loop for this many turns, so that the application can continue."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with the server checking the connection every second."""
        for _ in range(int(seconds)):
            self.loop.pass_time(1)
            self.protocol.check(self.loop.time())

    @property
    def answer(self) -> tuple[str, list[str], bytes]:
        """The status line, headers and body of the only answer."""
        head, _, body = self.transport.written.partition(b"\r\n\r\n")
        status, *headers = head.decode().split("\r\n")
        return status, headers, body

    @property
    def problem(self) -> dict[str, Any]:
        """The problem in the answer."""
        problem: dict[str, Any] = json.loads(self.answer[2])
        return problem

    async def _app(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self.scopes.append(scope)
        self.seen_in_context.append(_bound.get())
        _bound.set(len(self.scopes))
        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})
            return
        if scope["path"] == "/begins":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        await self.may_answer.wait()
        for each in self.response[1:] if scope["path"] == "/begins" else self.response:
            await send(dict(each))


def head_of(length: int, longest: str, headers: bytes) -> bytes:
    """A request head in which a given number of bytes counts towards the limit.

    Args:
        length: The bytes of the target and the header lines together.
        longest: The part that is long; `many` for many short headers.
        headers: Header lines that the head contains in any case.
    """
    target, more, short = b"/", b"", b"a: b\r\n"
    left = length - len(target) - len(headers)
    if longest == "target":
        target += b"x" * left
    elif longest == "name":
        more = b"x" * (left - 4) + b": \r\n"
    elif longest == "value":
        more = b"x: " + b"y" * (left - 5) + b"\r\n"
    else:
        more = short * (left // len(short) - 1)
        more += b"a: " + b"b" * (left - len(more) - 5) + b"\r\n"
    return b"GET " + target + b" HTTP/1.1\r\n" + headers + more + b"\r\n"


def pieces(data: bytes, length: int) -> list[bytes]:
    """The data, cut into pieces of this length."""
    return [data[at : at + length] for at in range(0, len(data), length)]
