"""Which requests reach the application, and how the server answers all others."""

import re
from pathlib import Path

import pytest

from example_service.server.protocol import ProblemProtocol
from example_service.server.refusals import MAX_HEAD_BYTES
from example_service.server.transport import LINGER_QUIET_SECONDS
from tests.unit.server.connection import (
    HEAD_SECONDS,
    HOST,
    OFFER,
    REQUEST,
    Connection,
    head_of,
    pieces,
)


async def test_invalid_http_gets_a_problem_and_the_connection_is_closed() -> None:
    """The body has all members of a problem, and does not repeat what the client sent."""
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
    """HTTP/1.0 needs no such header, and an empty one is left to the application."""
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
    """RFC 9112 requires exactly one; two can smuggle a request past a proxy."""
    connection = Connection()

    await connection.send(request_head)

    assert connection.problem["status"] == 400
    assert "Host" in connection.problem["detail"]
    assert connection.transport.ended
    assert not connection.scopes


@pytest.mark.parametrize("longest", ["target", "name", "value", "many"])
async def test_a_head_may_be_as_long_as_the_limit(longest: str) -> None:
    """A body after the head does not count."""
    connection = Connection()
    body = b"x" * 2 * MAX_HEAD_BYTES
    length = b"content-length: %d\r\n" % len(body)

    await connection.send(head_of(MAX_HEAD_BYTES, longest, HOST + length) + body)

    assert len(connection.scopes) == 1
    assert connection.answer[0] == "HTTP/1.1 204 No Content"


@pytest.mark.parametrize("longest", ["target", "name", "value", "many"])
@pytest.mark.parametrize("piece_bytes", [1_000, 1_000_000])
async def test_a_longer_head_is_refused(longest: str, piece_bytes: int) -> None:
    """It may arrive in one piece or in many; the check is at most half a kilobyte late."""
    connection = Connection()
    head = head_of(MAX_HEAD_BYTES + 600, longest, HOST)

    await connection.send(*pieces(head, piece_bytes))

    assert connection.answer[0] == "HTTP/1.1 431 Request Header Fields Too Large"
    assert connection.problem["type"] == "/problems/http-431"
    assert connection.problem["status"] == 431
    assert str(MAX_HEAD_BYTES) in connection.problem["detail"]
    assert connection.transport.ended
    assert not connection.scopes


async def test_a_target_that_is_a_little_longer_than_the_limit_is_refused_as_too_long() -> None:
    """It is not refused as invalid, although no URL parser accepts it."""
    connection = Connection()

    await connection.send(b"GET /" + b"x" * (MAX_HEAD_BYTES - 1) + b" HTTP/1.1\r\n\r\n")

    assert connection.problem["status"] == 431


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n"])
async def test_a_head_without_an_end_is_refused_on_the_way(beginning: bytes) -> None:
    """It is refused before it fills the memory, and the client receives the reason."""
    connection = Connection()
    sent = 0

    await connection.send(beginning)
    while not connection.transport.ended and sent < 3 * MAX_HEAD_BYTES:
        await connection.send(b"x" * 1_000)
        sent += 1_000

    assert connection.problem["status"] == 431
    assert sent <= MAX_HEAD_BYTES + 1_000


async def test_a_later_head_without_an_end_is_refused_too() -> None:
    """Earlier requests on a connection do not relax the limit."""
    connection = Connection()

    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", b"GET / HTTP/1.1\r\nx: ")
    await connection.send(*pieces(b"x" * 2 * MAX_HEAD_BYTES, 1_000))

    assert len(connection.scopes) == 1
    assert b"HTTP/1.1 431 " in connection.transport.written


async def test_each_request_of_a_connection_has_the_whole_limit() -> None:
    """This includes a request that arrives in the same piece as the end of a large body."""
    connection = Connection()
    body = b"x" * 3 * MAX_HEAD_BYTES
    length = b"content-length: %d\r\n" % len(body)
    first = head_of(MAX_HEAD_BYTES, "value", HOST + length)
    second = head_of(MAX_HEAD_BYTES, "many", HOST)

    await connection.send(*pieces(first[:-100], 1_000), first[-100:] + body + second[:100])
    await connection.send(*pieces(second[100:], 1_000), second)

    assert len(connection.scopes) == 3
    assert not connection.transport.ended


async def test_a_client_in_the_middle_of_sending_can_read_why_it_was_refused() -> None:
    """Closing at once would reset the connection because of unread bytes, so it closes later."""
    connection = Connection()

    await connection.send(b"nonsense\r\n\r\n", b"x" * MAX_HEAD_BYTES, b"x" * MAX_HEAD_BYTES)

    assert connection.problem["status"] == 400
    assert connection.transport.ended
    assert not connection.transport.closed


async def test_a_refused_connection_is_eventually_closed() -> None:
    """A client cannot keep it open by neither reading nor closing."""
    connection = Connection()

    await connection.send(b"nonsense\r\n\r\n")
    connection.pass_time(LINGER_QUIET_SECONDS)

    assert connection.transport.closed


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"])
async def test_a_head_that_takes_too_long_is_refused(before: bytes) -> None:
    """A steady trickle does not help, neither in the first head of a connection nor later."""
    connection = Connection()

    await connection.send(before, b"GET / HTTP/1.1\r\nx: ")
    for _ in range(2):
        assert not connection.transport.ended
        connection.pass_time(HEAD_SECONDS / 2 + 1)
        await connection.send(b"x")

    status_line = b"HTTP/1.1 408 Request Timeout\r\n"
    assert connection.transport.written.count(status_line) == 1
    assert b'"/problems/http-408"' in connection.transport.written
    assert connection.transport.ended
    assert len(connection.scopes) == bool(before)


async def test_the_time_limit_of_a_head_ends_with_the_head() -> None:
    """It limits neither the answer nor the next request."""
    connection = Connection()
    whole = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"

    await connection.send(whole[:10], whole[10:])
    connection.pass_time(4.0)
    await connection.send(whole[:10])
    connection.pass_time(HEAD_SECONDS - 1)
    await connection.send(whole[10:])

    assert len(connection.scopes) == 2
    assert not connection.transport.ended


async def test_a_connection_without_a_request_is_closed_in_silence() -> None:
    """Browsers open spare connections, and would take an answer for that to their next request."""
    connection = Connection()

    connection.pass_time(HEAD_SECONDS)

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
    """Otherwise the client would take it for the answer to the earlier request."""
    connection = Connection()
    connection.may_answer.clear()

    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n" + behind)
    connection.pass_time(HEAD_SECONDS)
    assert connection.transport.written == b""
    connection.may_answer.set()
    await connection.send(b"x")
    connection.pass_time(HEAD_SECONDS)

    first, second = connection.transport.written.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"204 ")
    assert second.startswith(status)
    assert connection.transport.ended


async def test_a_refusal_waits_for_all_answers_before_it() -> None:
    """Pipelined requests are answered in order."""
    connection = Connection()
    connection.may_answer.clear()
    request = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"

    await connection.send(request + request + b"nonsense\r\n\r\n")
    connection.may_answer.set()
    await connection.send(b"x")

    answers = connection.transport.written.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"204", b"204", b"400"]


@pytest.mark.parametrize("piece_bytes", [1, 7, 1_000])
async def test_an_offer_to_change_the_protocol_is_ignored(piece_bytes: int) -> None:
    """HTTP/2 clients send it with any request; the body is still read as a body."""
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
    """The service is not a proxy."""
    connection = Connection()

    await connection.send(b"CONNECT service.test:80 HTTP/1.1\r\n" + HOST + b"\r\n")

    assert connection.problem["status"] == 400
    assert not connection.scopes


@pytest.mark.parametrize("white_space", [b" ", b"\t", b" \t  "])
async def test_whitespace_around_a_header_value_is_removed(white_space: bytes) -> None:
    """Otherwise the same key with and without spaces would count as two keys."""
    connection = Connection()

    await connection.send(
        b"GET / HTTP/1.1\r\n" + HOST + b"Key:" + white_space + b"a b" + white_space + b"\r\n\r\n"
    )

    (scope,) = connection.scopes
    assert dict(scope["headers"])[b"key"] == b"a b"


async def test_whitespace_behind_an_expectation_is_removed() -> None:
    """Otherwise the client would wait for an interim response that never comes."""
    connection = Connection()

    await connection.send(
        b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue \r\nContent-Length: 1\r\n\r\n"
    )

    assert connection.transport.written.startswith(b"HTTP/1.1 100 Continue\r\n")


def test_each_part_of_the_protocol_names_a_test_that_exists() -> None:
    """Code that no test needs can be removed."""
    named = set(re.findall(r"`(test_\w+)`", ProblemProtocol.__doc__ or ""))
    folder = Path(__file__).parent
    tests = {
        name
        for path in folder.glob("test_*.py")
        for name in re.findall(r"^async def (test_\w+)", path.read_text(), re.MULTILINE)
    }

    assert len(named) > 10
    assert named <= tests


@pytest.mark.parametrize("before", [b"", REQUEST])
@pytest.mark.parametrize("method", [b"FOO", b"get", b"X-A_b~1", b"GETS", b"PLAY"])
async def test_an_unknown_method_is_refused(before: bytes, method: bytes) -> None:
    """The status is 501, as RFC 9110, section 9.1, recommends."""
    connection = Connection()

    await connection.send(before, method + b" / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert connection.transport.written.count(b"HTTP/1.1 501 Not Implemented\r\n") == 1
    assert connection.transport.ended


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n", b"hello\r\n"])
async def test_another_protocol_has_no_unknown_method(data: bytes) -> None:
    """TLS on a port for plain HTTP is not a valid request."""
    connection = Connection()

    await connection.send(data)

    assert connection.problem["status"] == 400


async def test_http_1_0_gets_no_interim_response() -> None:
    """A client of HTTP/1.0 would take `100 Continue` for the final response."""
    connection = Connection()

    head = HOST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    await connection.send(b"POST / HTTP/1.0\r\n" + head, b"x")

    assert connection.answer[0] == "HTTP/1.1 204 No Content"
