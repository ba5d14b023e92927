"""In which pieces a response is sent."""

from tests.unit.server.connection import HOST, REQUEST, Connection

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
STREAM = {"type": "http.response.start", "status": 200, "headers": []}
WHOLE = {"type": "http.response.body", "body": b"pong"}
HALF = {"type": "http.response.body", "body": b"po", "more_body": True}
REST = {"type": "http.response.body", "body": b"ng"}


async def test_the_head_of_a_response_is_sent_together_with_its_body() -> None:
    """A client then receives one packet instead of two. This holds for each response."""
    connection = Connection(response=[START, WHOLE])

    await connection.send(REQUEST, REQUEST)

    assert len(connection.transport.pieces) == 2
    for piece in connection.transport.pieces:
        assert piece.startswith(b"HTTP/1.1 200 OK\r\n")
        assert piece.endswith(b"\r\n\r\npong")


async def test_later_parts_of_a_body_are_sent_as_they_come() -> None:
    """Only the first part waits for nothing but the head."""
    connection = Connection(response=[START, HALF, REST])

    await connection.send(REQUEST)

    first, second = connection.transport.pieces
    assert first.endswith(b"\r\n\r\npo")
    assert second == b"ng"


async def test_the_head_of_a_streamed_response_is_sent_at_once() -> None:
    """Its body may begin minutes later, as that of an event stream does."""
    connection = Connection(response=[STREAM, HALF, REST])

    await connection.send(REQUEST)

    assert connection.transport.pieces[0].endswith(b"transfer-encoding: chunked\r\n\r\n")


async def test_a_response_to_head_has_no_body_to_wait_for() -> None:
    """It is sent although the application's body is dropped."""
    connection = Connection(response=[START, WHOLE])

    await connection.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert connection.answer[0] == "HTTP/1.1 200 OK"
    assert connection.answer[2] == b""


async def test_an_interim_response_is_sent_at_once() -> None:
    """The client waits for it before it sends its body."""
    connection = Connection(response=[START, WHOLE])
    expectation = b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"

    await connection.send(b"POST / HTTP/1.1\r\n" + HOST + expectation)
    assert connection.transport.pieces == [b"HTTP/1.1 100 Continue\r\n\r\n"]

    await connection.send(b"x")
    assert connection.transport.written.endswith(b"\r\n\r\npong")


async def test_a_response_that_fails_before_its_body_is_incomplete() -> None:
    """The client receives its head, so that it does not mistake this for a broken connection."""
    connection = Connection(response=[START])

    await connection.send(REQUEST)

    assert connection.answer[0] == "HTTP/1.1 200 OK"
    assert connection.answer[2] == b""
    assert connection.transport.ended
