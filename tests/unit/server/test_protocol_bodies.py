"""Bodies and trailers of requests: broken ones, endless ones, and those that nothing reads."""

import pytest

from example_service.server.refusals import MAX_HEAD_BYTES
from tests.unit.server.connection import CHUNKED, HEAD_SECONDS, HOST, Connection, pieces


@pytest.mark.parametrize("body", [b"0", b"nonsense\r\n"])
async def test_a_broken_body_is_refused_at_once(body: bytes) -> None:
    """The application, which is waiting for the rest of the body, sees a disconnect."""
    connection = Connection()

    await connection.send(CHUNKED, b"1\r\nx\r\n", b"\r\n" + body + b"\r\n\r\n")

    assert connection.problem["status"] == 400
    assert connection.transport.written.count(b"HTTP/1.1 ") == 1
    assert connection.bodies == [b"x"]


async def test_a_broken_body_ends_an_answer_that_has_begun() -> None:
    """An error cannot be inserted into a response that is already being sent."""
    connection = Connection()
    path = b"/begins"

    await connection.send(CHUNKED.replace(b"/ ", path + b" ", 1), b"1\r\nx\r\n", b"\r\n\r\n")

    assert connection.transport.written.count(b"HTTP/1.1 ") == 1
    assert b"400" not in connection.transport.written
    assert connection.transport.ended


@pytest.mark.parametrize("trailers", [b"x: y\r\n" * 250, b"x" * 1_000])
async def test_trailers_without_an_end_are_refused(trailers: bytes) -> None:
    """Otherwise they would fill the memory, or last as long as the request may take."""
    connection = Connection()

    await connection.send(CHUNKED + b"1\r\nx\r\n0\r\nx: ")
    sent = 0
    while not connection.transport.ended and sent < 3 * MAX_HEAD_BYTES:
        await connection.send(trailers)
        sent += len(trailers)

    assert sent <= MAX_HEAD_BYTES + 1_000 + len(trailers)
    assert connection.problem["status"] == 431


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", b"\r\n"),
        (b"POST /early HTTP/1.1\r\n" + HOST + b"content-length: 1000\r\n\r\n", b"x"),
        (CHUNKED.replace(b"/ ", b"/early ", 1) + b"0\r\n", b"x: y\r\n"),
    ],
)
async def test_a_trickle_does_not_keep_an_answered_connection_open(
    request_: bytes, more: bytes
) -> None:
    """It may consist of empty lines between requests, of an unread body, or of trailers."""
    connection = Connection()

    await connection.send(request_)
    assert connection.transport.written.startswith(b"HTTP/1.1 ")
    for _ in range(9):
        await connection.send(more)
        connection.pass_time(HEAD_SECONDS / 8)

    assert connection.transport.closed


async def test_a_small_unread_body_is_read_to_its_end() -> None:
    """The client is still sending the body, and reuses the connection afterwards."""
    connection = Connection()
    body = b"x" * (MAX_HEAD_BYTES // 2)
    length = b"content-length: %d\r\n\r\n" % len(body)

    await connection.send(b"POST /early HTTP/1.1\r\n" + HOST + length, *pieces(body, 10_000))
    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert [scope["path"] for scope in connection.scopes] == ["/early", "/"]
    assert connection.transport.written.endswith(b"HTTP/1.1 204 No Content\r\ndate: today\r\n\r\n")


async def test_a_large_unread_body_ends_the_connection() -> None:
    """The answer has already been sent, and no second one follows."""
    connection = Connection()
    length = b"content-length: 1000000\r\n\r\n"

    await connection.send(
        b"POST /early HTTP/1.1\r\n" + HOST + length, *pieces(b"x" * 2 * MAX_HEAD_BYTES, 10_000)
    )

    assert connection.transport.written.count(b"HTTP/1.1 ") == 1
    assert connection.transport.ended


async def test_trailers_do_not_become_headers() -> None:
    """Trailers after the body cannot replace headers that have been checked."""
    connection = Connection()

    await connection.send(
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\nauthorization: Bearer late\r\nhost: other.test\r\n\r\n"
    )

    (scope,) = connection.scopes
    assert [name for name, _ in scope["headers"]] == [b"host", b"transfer-encoding"]
