"""What the server lets pass to the application, and what it answers to everything else."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from uvicorn.lifespan.off import LifespanOff
from uvicorn.server import ServerState

from example_service.core.lifecycle import begin_draining, end_draining
from example_service.server.protocol import HEAD_SECONDS, MAX_HEAD_BYTES, ProblemProtocol

HOST = b"Host: service.test\r\n"


class RecordingTransport(asyncio.Transport):
    """Keeps what is written to it.

    Attributes:
        written: What was.
        ended: Whether nothing more is written.
        closed: Whether nothing more is read either.
    """

    def __init__(self, *, has_eof: bool) -> None:
        super().__init__()
        self.has_eof = has_eof
        self.written = b""
        self.ended = False
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the bytes."""
        self.written += data

    def can_write_eof(self) -> bool:
        """As on a plain connection; TLS cannot close one direction."""
        return self.has_eof

    def write_eof(self) -> None:
        """Note that nothing more is written."""
        self.ended = True

    def close(self) -> None:
        """Note that the connection is closed."""
        self.ended = self.closed = True

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return self.closed

    def pause_reading(self) -> None:
        """Nothing is read from it."""

    def resume_reading(self) -> None:
        """Nothing is read from it."""


class Timers:
    """The part of an event loop that has to do with time, which passes when a test says so."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = 0.0
        self._waiting: dict[asyncio.TimerHandle, Callable[[], object]] = {}

    def call_later(self, seconds: float, act: Callable[[], object]) -> asyncio.TimerHandle:
        """Do something when so much time has passed."""
        timer = asyncio.TimerHandle(self._now + seconds, act, (), self._loop)
        self._waiting[timer] = act
        return timer

    def create_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """As on the real loop."""
        return self._loop.create_task(work)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and do what was due meanwhile."""
        self._now += seconds
        for timer in [one for one in self._waiting if one.when() <= self._now]:
            act = self._waiting.pop(timer)
            if not timer.cancelled():
                act()


@dataclass
class Connection:
    """A connection to a server whose application keeps what it is asked.

    Attributes:
        has_eof: Whether one direction of it can be closed.
        keep_alive_seconds: How long it may be idle.
        scopes: What reached the application.
        bodies: The bodies of those requests.
        timers: What waits for time to pass.
        may_answer: Whether the application answers.
        protocol: What is tested.
    """

    has_eof: bool = True
    keep_alive_seconds: int = 5
    scopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Connect."""
        self.timers = Timers()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            ws="none",
            timeout_keep_alive=self.keep_alive_seconds,
        )
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        self.transport = RecordingTransport(has_eof=self.has_eof)
        self.protocol = ProblemProtocol(config, state, LifespanOff(config).state)
        self.protocol.loop = self.timers  # type: ignore[assignment]
        self.protocol.connection_made(self.transport)

    async def send(self, *pieces: bytes) -> None:
        """Send something, piece by piece, and let the application answer in between."""
        for piece in pieces:
            if not self.transport.closed:
                self.protocol.data_received(piece)
            for _ in range(5):
                await asyncio.sleep(0)

    @property
    def answer(self) -> tuple[str, list[str], bytes]:
        """Status line, headers and body of the one answer."""
        head, _, body = self.transport.written.partition(b"\r\n\r\n")
        status, *headers = head.decode().split("\r\n")
        return status, headers, body

    @property
    def problem(self) -> dict[str, Any]:
        """The problem that was answered."""
        problem: dict[str, Any] = json.loads(self.answer[2])
        return problem

    async def _app(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self.scopes.append(scope)
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
        if scope["path"] != "/begins":
            await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def test_what_is_no_http_gets_a_problem_and_the_connection_is_closed() -> None:
    """The body has all members of a problem, and repeats nothing of what was sent."""
    connection = Connection()

    await connection.send(b"SECRET nonsense\r\n\r\n")

    status, headers, body = connection.answer
    problem = connection.problem
    assert status == "HTTP/1.1 400 Bad Request"
    assert "date: today" in headers
    assert "content-type: application/problem+json" in headers
    assert f"content-length: {len(body)}" in headers
    assert f"x-request-id: {problem['request_id']}" in headers
    assert problem["type"] == "/problems/http-400"
    assert (problem["title"], problem["status"]) == ("Bad Request", 400)
    assert problem["instance"].startswith("urn:uuid:")
    assert b"SECRET" not in connection.transport.written
    assert connection.transport.ended
    assert not connection.scopes


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\nhOsT:\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + HOST + b"\r\n",
    ],
)
async def test_a_request_that_names_one_host_is_served(request_head: bytes) -> None:
    """HTTP/1.0 had no such header; an empty one is for the application to judge."""
    connection = Connection()

    await connection.send(request_head)

    assert [scope["path"] for scope in connection.scopes] == ["/"]
    assert connection.answer[0] == "HTTP/1.1 204 No Content"


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"host: other.test\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
    ],
)
async def test_a_request_without_one_host_is_refused(request_head: bytes) -> None:
    """As RFC 9112 demands; two of them are how requests are smuggled past a proxy."""
    connection = Connection()

    await connection.send(request_head)

    assert connection.problem["status"] == 400
    assert "Host" in connection.problem["detail"]
    assert connection.transport.ended
    assert not connection.scopes


@pytest.mark.parametrize("longest", ["target", "name", "value", "many"])
async def test_a_head_may_be_as_long_as_the_limit(longest: str) -> None:
    """Up to the byte; what comes after it, a body, does not count."""
    connection = Connection()
    body = b"x" * 2 * MAX_HEAD_BYTES
    length = b"content-length: %d\r\n" % len(body)

    await connection.send(head_of(MAX_HEAD_BYTES, longest, HOST + length) + body)

    assert len(connection.scopes) == 1
    assert connection.answer[0] == "HTTP/1.1 204 No Content"


@pytest.mark.parametrize("longest", ["target", "name", "value", "many"])
@pytest.mark.parametrize("piece_bytes", [1_000, 1_000_000])
async def test_a_longer_head_is_refused(longest: str, piece_bytes: int) -> None:
    """In one piece, or in many."""
    connection = Connection()
    head = head_of(MAX_HEAD_BYTES + 1, longest, HOST)

    await connection.send(*pieces(head, piece_bytes))

    assert connection.answer[0] == "HTTP/1.1 431 Request Header Fields Too Large"
    assert connection.problem["type"] == "/problems/http-431"
    assert connection.problem["status"] == 431
    assert str(MAX_HEAD_BYTES) in connection.problem["detail"]
    assert connection.transport.ended
    assert not connection.scopes


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n"])
async def test_a_head_without_an_end_is_refused_on_the_way(beginning: bytes) -> None:
    """Before it fills the memory; whoever sends it learns why."""
    connection = Connection()
    sent = 0

    await connection.send(beginning)
    while not connection.transport.ended and sent < 3 * MAX_HEAD_BYTES:
        await connection.send(b"x" * 1_000)
        sent += 1_000

    assert connection.problem["status"] == 431
    assert sent <= MAX_HEAD_BYTES + 1_000


async def test_a_later_head_without_an_end_is_refused_too() -> None:
    """A connection earns no trust."""
    connection = Connection()

    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", b"GET / HTTP/1.1\r\nx: ")
    await connection.send(*pieces(b"x" * 2 * MAX_HEAD_BYTES, 1_000))

    assert len(connection.scopes) == 1
    assert b"HTTP/1.1 431 " in connection.transport.written


async def test_each_request_of_a_connection_has_the_whole_limit() -> None:
    """Also one that begins in the same piece in which a large body ends."""
    connection = Connection()
    body = b"x" * 3 * MAX_HEAD_BYTES
    length = b"content-length: %d\r\n" % len(body)
    first = head_of(MAX_HEAD_BYTES, "value", HOST + length)
    second = head_of(MAX_HEAD_BYTES, "many", HOST)

    await connection.send(*pieces(first[:-100], 1_000), first[-100:] + body + second[:100])
    await connection.send(*pieces(second[100:], 1_000), second)

    assert len(connection.scopes) == 3
    assert not connection.transport.ended


async def test_while_the_process_drains_each_answer_ends_its_connection() -> None:
    """The client's next request goes elsewhere, rather than over a connection that is closed."""
    connection, request = Connection(), b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    await connection.send(request)
    assert b"connection: close" not in connection.transport.written
    assert not connection.transport.closed

    begin_draining()
    try:
        await connection.send(request)
    finally:
        end_draining()

    assert len(connection.scopes) == 2
    assert connection.transport.written.count(b"connection: close") == 1
    assert connection.transport.closed


async def test_an_answer_that_has_not_begun_may_still_end_its_connection() -> None:
    """Its request came before the drain, and takes a while."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

    connection.protocol.close_with_answer()
    connection.may_answer.set()
    for _ in range(5):
        await asyncio.sleep(0)

    assert connection.transport.written.count(b"connection: close") == 1
    assert connection.transport.closed


async def test_an_answer_that_has_begun_ends_as_it_has_announced() -> None:
    """The client may be sending its next request already."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(b"GET /begins HTTP/1.1\r\n" + HOST + b"\r\n")

    connection.protocol.close_with_answer()
    connection.may_answer.set()
    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert not connection.transport.closed
    assert len(connection.scopes) == 2


async def test_an_idle_connection_may_be_told_to_close() -> None:
    """Nothing happens to it: the end of the drain closes it."""
    connection = Connection()

    connection.protocol.close_with_answer()

    assert not connection.transport.closed


async def test_a_connection_opened_in_advance_is_idle_for_as_long_as_any() -> None:
    """Proxies open some; what comes over them has all the time of a head from its first byte."""
    connection = Connection(keep_alive_seconds=75)
    connection.timers.pass_time(74)
    assert not connection.transport.closed

    await connection.send(b"GET / HTTP/1.1\r\n")
    connection.timers.pass_time(HEAD_SECONDS - 1)
    await connection.send(HOST + b"\r\n")
    assert len(connection.scopes) == 1

    idle = Connection(keep_alive_seconds=75)
    idle.timers.pass_time(75)
    assert idle.transport.closed


async def test_a_client_in_the_middle_of_sending_can_read_why_it_was_refused() -> None:
    """The connection is closed later: at once, unread bytes would have it reset."""
    connection = Connection()

    await connection.send(b"nonsense\r\n\r\n", b"x" * MAX_HEAD_BYTES, b"x" * MAX_HEAD_BYTES)

    assert connection.problem["status"] == 400
    assert connection.transport.ended
    assert not connection.transport.closed


async def test_a_connection_with_only_both_directions_is_closed_at_once() -> None:
    """Under TLS there is no other end."""
    connection = Connection(has_eof=False)

    await connection.send(b"nonsense\r\n\r\n")

    assert connection.transport.closed


async def test_a_refused_connection_is_closed_in_the_end() -> None:
    """A client that neither reads nor ends cannot keep it."""
    connection = Connection()

    await connection.send(b"nonsense\r\n\r\n")
    connection.timers.pass_time(2.0)

    assert connection.transport.closed


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"])
async def test_a_head_that_takes_too_long_is_refused(before: bytes) -> None:
    """However steadily it trickles in, and whether or not it is the first of its connection."""
    connection = Connection()

    await connection.send(before, b"GET / HTTP/1.1\r\nx: ")
    for _ in range(2):
        assert not connection.transport.ended
        connection.timers.pass_time(HEAD_SECONDS / 2)
        await connection.send(b"x")

    status_line = b"HTTP/1.1 408 Request Timeout\r\n"
    assert connection.transport.written.count(status_line) == 1
    assert b'"/problems/http-408"' in connection.transport.written
    assert connection.transport.ended
    assert len(connection.scopes) == bool(before)


async def test_a_head_that_was_in_time_is_waited_for_no_longer() -> None:
    """Neither the answer nor the next request has to do with its time."""
    connection = Connection()
    whole = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"

    await connection.send(whole[:10], whole[10:])
    connection.timers.pass_time(4.0)
    await connection.send(whole[:10])
    connection.timers.pass_time(HEAD_SECONDS - 1)
    await connection.send(whole[10:])

    assert len(connection.scopes) == 2
    assert not connection.transport.ended


async def test_a_connection_without_a_request_is_closed_in_silence() -> None:
    """Browsers open some in advance, and would take an answer for one to their request."""
    connection = Connection()

    connection.timers.pass_time(HEAD_SECONDS)

    assert connection.transport.closed
    assert connection.transport.written == b""


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400 "),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", b"400 "),
        (b"nonsense\r\n\r\n", b"400 "),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n", b"431 "),
        (b"GET / HTTP/1.1\r\nx: ", b"408 "),
    ],
)
async def test_a_refusal_waits_for_the_answer_before_it(behind: bytes, status: bytes) -> None:
    """Or it would be taken for that answer, of a request that is being served."""
    connection = Connection()
    connection.may_answer.clear()

    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n" + behind)
    connection.timers.pass_time(HEAD_SECONDS)
    assert connection.transport.written == b""
    connection.may_answer.set()
    await connection.send(b"x")
    connection.timers.pass_time(HEAD_SECONDS)

    first, second = connection.transport.written.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"204 ")
    assert second.startswith(status)
    assert connection.transport.ended


async def test_a_refusal_waits_for_all_answers_before_it() -> None:
    """Requests that were sent without waiting are answered in their order."""
    connection = Connection()
    connection.may_answer.clear()
    request = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"

    await connection.send(request + request + b"nonsense\r\n\r\n")
    connection.may_answer.set()
    await connection.send(b"x")

    answers = connection.transport.written.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"204", b"204", b"400"]


@pytest.mark.parametrize("body", [b"0", b"nonsense\r\n"])
async def test_a_body_that_is_broken_is_refused_at_once(body: bytes) -> None:
    """The application, which waits for the rest of it, hears that the client has gone."""
    connection = Connection()

    await connection.send(CHUNKED, b"1\r\nx\r\n", b"\r\n" + body + b"\r\n\r\n")

    assert connection.problem["status"] == 400
    assert connection.transport.written.count(b"HTTP/1.1 ") == 1
    assert connection.bodies == [b"x"]


async def test_a_broken_body_ends_an_answer_that_has_begun() -> None:
    """Nothing can be said in the middle of it."""
    connection = Connection()
    path = b"/begins"

    await connection.send(CHUNKED.replace(b"/ ", path + b" ", 1), b"1\r\nx\r\n", b"\r\n\r\n")

    assert connection.transport.written.count(b"HTTP/1.1 ") == 1
    assert b"400" not in connection.transport.written
    assert connection.transport.closed


CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"


@pytest.mark.parametrize("piece_bytes", [1, 7, 1_000])
async def test_an_offer_to_change_the_protocol_is_not_taken(piece_bytes: int) -> None:
    """Clients of HTTP/2 make it with any request; the body stays a body."""
    connection = Connection()
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    length = b"content-length: %d\r\n" % len(body)
    request = b"POST /?a=%20 HTTP/1.1\r\n" + HOST + OFFER + b"X: y\r\n" + length + b"\r\n" + body

    await connection.send(*pieces(request * 2, piece_bytes))

    assert connection.bodies == [body, body]
    for scope in connection.scopes:
        assert (scope["method"], scope["raw_path"], scope["query_string"]) == (
            *("POST", b"/"),
            b"a=%20",
        )
        names = [name for name, _ in scope["headers"]]
        assert names == [b"host", b"connection", b"x", b"content-length"]
    assert connection.transport.written.count(b"HTTP/1.1 204 ") == 2
    assert not connection.transport.ended


async def test_a_tunnel_is_refused() -> None:
    """This is no proxy."""
    connection = Connection()

    await connection.send(b"CONNECT service.test:80 HTTP/1.1\r\n" + HOST + b"\r\n")

    assert connection.problem["status"] == 400
    assert not connection.scopes


@pytest.mark.parametrize("trailers", [b"x: y\r\n" * 250, b"x" * 1_000])
async def test_trailers_without_an_end_end_the_connection(trailers: bytes) -> None:
    """They would be kept in memory, or time out only with the request."""
    connection = Connection()

    await connection.send(CHUNKED + b"1\r\nx\r\n0\r\nx: ")
    sent = 0
    while not connection.transport.closed and sent < 3 * MAX_HEAD_BYTES:
        await connection.send(trailers)
        sent += len(trailers)

    assert sent <= MAX_HEAD_BYTES + len(trailers)


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", b"\r\n"),
        (b"POST /early HTTP/1.1\r\n" + HOST + b"content-length: 1000\r\n\r\n", b"x"),
        (CHUNKED.replace(b"/ ", b"/early ", 1) + b"0\r\n", b"x: y\r\n"),
    ],
)
async def test_an_answered_connection_is_not_kept_by_a_trickle(
    request_: bytes, more: bytes
) -> None:
    """Of lines between requests, of a body that nobody wants, of trailers."""
    connection = Connection()

    await connection.send(request_)
    assert connection.transport.written.startswith(b"HTTP/1.1 ")
    for _ in range(9):
        await connection.send(more)
        connection.timers.pass_time(HEAD_SECONDS / 8)

    assert connection.transport.closed


async def test_a_large_body_that_nobody_wants_is_read_to_its_end() -> None:
    """The client is still sending it, and uses the connection again."""
    connection = Connection()
    body = b"x" * 4 * MAX_HEAD_BYTES
    length = b"content-length: %d\r\n\r\n" % len(body)

    await connection.send(b"POST /early HTTP/1.1\r\n" + HOST + length, *pieces(body, 10_000))
    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert [scope["path"] for scope in connection.scopes] == ["/early", "/"]
    assert connection.transport.written.endswith(b"HTTP/1.1 204 No Content\r\ndate: today\r\n\r\n")


async def test_trailers_do_not_become_headers() -> None:
    """What has been checked cannot be changed by what comes after the body."""
    connection = Connection()

    await connection.send(
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\nauthorization: Bearer late\r\nhost: other.test\r\n\r\n"
    )

    (scope,) = connection.scopes
    assert [name for name, _ in scope["headers"]] == [b"host", b"transfer-encoding"]


def head_of(length: int, longest: str, headers: bytes) -> bytes:
    """A head of which so many bytes count, most of them in one place.

    Args:
        length: Bytes of the target and of the lines of headers.
        longest: Which of them is long; `many` for many short headers.
        headers: Whole lines that are in it anyway.
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
    """The data in pieces of this length."""
    return [data[at : at + length] for at in range(0, len(data), length)]
