"""How much one connection can cost the service, and how unusual clients are answered."""

import pytest

from example_service.server.protocol import MAX_PIPELINED
from example_service.server.transport import LINGER_BYTES, LINGER_SECONDS
from tests.unit.server.connection import (
    CHUNKED,
    HOST,
    OFFER,
    REQUEST,
    SEND_SECONDS,
    Connection,
    pieces,
)


async def test_a_connection_keeps_a_bounded_number_of_requests_waiting() -> None:
    """Further requests are read only when there is room, and all of them are answered."""
    connection = Connection()
    connection.may_answer.clear()

    await connection.send(REQUEST * 200)

    assert MAX_PIPELINED <= len(connection.protocol.pipeline) <= MAX_PIPELINED + 20
    assert not connection.transport.reading
    connection.may_answer.set()
    await connection.settle(2_000)
    assert len(connection.scopes) == 200
    assert connection.transport.reading


async def test_the_last_waiting_request_gets_the_rest_of_its_body() -> None:
    """Its body may not have been read when the limit of waiting requests was reached."""
    connection = Connection()
    request = CHUNKED + b"1\r\nx\r\n" * 60 + b"0\r\n\r\n"

    await connection.send(request * 100)
    await connection.settle(2_000)

    assert connection.bodies == [b"x" * 60] * 100
    assert connection.transport.reading


async def test_many_offers_to_change_the_protocol_are_read_one_after_the_other() -> None:
    """It does not matter how many are sent at once."""
    connection = Connection()
    offer = b"GET / HTTP/1.1\r\n" + HOST + OFFER + b"\r\n"

    await connection.send(offer * 3_000)
    await connection.settle(40_000)

    assert len(connection.scopes) == 3_000
    assert not connection.transport.ended


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    """Its answers are dropped, and its requests are cancelled."""
    connection = Connection()
    await connection.send(REQUEST)
    connection.transport.unsent = len(connection.transport.written)

    connection.pass_time(SEND_SECONDS)
    assert not connection.transport.aborted
    connection.pass_time(1)

    assert connection.transport.aborted


async def test_a_client_that_reads_slowly_is_served() -> None:
    """A slow client is served as long as it reads more than a trickle."""
    connection = Connection()
    connection.protocol.transport.write(b"x" * 100_000)

    for unsent in range(100_000, 0, -10_000):
        connection.transport.unsent = unsent
        connection.pass_time(SEND_SECONDS - 1)

    assert not connection.transport.aborted


async def test_a_client_that_reads_a_trickle_is_disconnected() -> None:
    """Otherwise it could occupy its connection for hours."""
    connection = Connection()
    connection.protocol.transport.write(b"x" * 100_000)

    for unsent in range(100_000, 99_900, -1):
        connection.transport.unsent = unsent
        connection.pass_time(1)

    assert connection.transport.aborted


async def test_no_request_begins_before_the_client_has_read_enough() -> None:
    """A client that does not read cannot occupy a slot of the application."""
    connection = Connection()
    connection.protocol.pause_writing()
    connection.may_answer.clear()

    await connection.send(REQUEST)
    assert not connection.scopes
    assert not connection.transport.reading

    connection.protocol.resume_writing()
    await connection.settle()
    assert len(connection.scopes) == 1
    assert connection.transport.reading


async def test_the_next_request_waits_until_the_client_has_read_the_answer() -> None:
    """This includes a request that has already been received."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(REQUEST * 2)
    connection.protocol.flow.write_paused = True
    connection.may_answer.set()
    await connection.settle()
    assert len(connection.scopes) == 1

    connection.protocol.resume_writing()
    await connection.settle()
    assert len(connection.scopes) == 2


@pytest.mark.parametrize("count", [1, 3])
async def test_a_client_that_closes_its_end_gets_its_answers(count: int) -> None:
    """`nc` does this; the connection is closed after the last answer."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(REQUEST * count)

    assert connection.protocol.eof_received()
    connection.may_answer.set()
    assert not connection.transport.ended
    await connection.settle(50)

    assert connection.transport.written.count(b"HTTP/1.1 204 ") == count
    assert connection.transport.closed


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n" + HOST])
async def test_a_client_that_closes_its_end_within_a_head_is_refused(sent: bytes) -> None:
    """The rest of its request can no longer arrive."""
    connection = Connection()
    await connection.send(sent)

    connection.protocol.eof_received()

    assert connection.problem["status"] == 400
    assert connection.transport.closed


async def test_a_client_that_closes_its_end_within_a_body_is_refused() -> None:
    """The application sees a disconnect."""
    connection = Connection()
    await connection.send(CHUNKED, b"1\r\nx\r\n")

    connection.protocol.eof_received()
    await connection.settle()

    assert connection.problem["status"] == 400
    assert connection.bodies == [b"x"]
    assert connection.transport.closed


async def test_an_idle_connection_is_closed_when_its_client_closes_its_end() -> None:
    """No answer is sent."""
    connection = Connection()

    connection.protocol.eof_received()

    assert connection.transport.closed
    assert connection.transport.written == b""


async def test_a_client_may_disconnect_while_further_requests_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The application sees a disconnect, the waiting requests are dropped, and no error occurs."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(CHUNKED + b"0\r\n\r\n" + REQUEST * 2)

    connection.transport.closed = True
    connection.protocol.connection_lost(ConnectionResetError())
    connection.may_answer.set()
    await connection.settle(50)

    assert len(connection.scopes) == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("version", "status"),
    [
        (b"HTTP/2.0", 505),
        (b"HTTP/3", 505),
        (b"HTTP/0.9", 505),
        (b"HTTP/1.2", 505),
        (b"HTTP/11.1", 505),
        (b"HTTP/x.y", 505),
        (b"FTP/1.1", 400),
    ],
)
async def test_an_unknown_version_is_refused(version: bytes, status: int) -> None:
    """An unknown version of HTTP gets status 505; anything else gets 400."""
    connection = Connection()

    await connection.send(b"GET / " + version + b"\r\n" + HOST + b"\r\n")

    assert connection.problem["status"] == status
    assert not connection.scopes


@pytest.mark.parametrize(
    "codings", [b"gzip", b"gzip, chunked", b"identity", b"chunked, gzip", b"x", b"chunked, chunked"]
)
async def test_a_transfer_coding_other_than_chunked_is_refused(codings: bytes) -> None:
    """Its body cannot be read, and no part of it reaches the application."""
    connection = Connection()

    await connection.send(
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: " + codings + b"\r\n\r\n0\r\n\r\n"
    )

    assert connection.problem["status"] == 501
    assert not connection.scopes


@pytest.mark.parametrize("digits", [20, 50, 5_000])
async def test_an_absurd_content_length_is_refused(digits: int) -> None:
    """The number would overflow in the parser."""
    connection = Connection()

    await connection.send(
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * digits + b"\r\n\r\n"
    )

    assert connection.problem["status"] == 413
    assert not connection.scopes


@pytest.mark.parametrize("extension", [b";" + b"x" * 70_000, b";x" * 70_000])
async def test_long_chunk_extensions_are_refused(extension: bytes) -> None:
    """They have no use, and the client receives the reason."""
    connection = Connection()

    await connection.send(CHUNKED + b"1" + extension + b"\r\nx\r\n")

    assert connection.problem["status"] == 431
    assert connection.transport.ended
    assert not connection.transport.closed


async def test_many_small_chunks_are_a_body() -> None:
    """The size lines of chunks do not count as chunk extensions."""
    connection = Connection()
    chunk = b"001\r\nx\r\n"

    await connection.send(CHUNKED, *pieces(chunk * 20_000 + b"0\r\n\r\n", 60_000))

    assert connection.bodies == [b"x" * 20_000]


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://other.test/a?b", b"other.test"),
        (b"HTTPS://other.test:8443/a?b", b"other.test:8443"),
        (b"http://[::1]:80/a?b", b"[::1]:80"),
        (b"/a?b", b"service.test"),
    ],
)
async def test_the_authority_of_the_target_wins_over_the_host(target: bytes, host: bytes) -> None:
    """A proxy in front of the service uses it as well (RFC 9112, section 3.2.2)."""
    connection = Connection()

    await connection.send(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    (scope,) = connection.scopes
    assert [value for name, value in scope["headers"] if name == b"host"] == [host]
    assert (scope["path"], scope["query_string"]) == ("/a", b"b")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://other.test", "/", b""),
        (b"http://other.test?b=1", "/", b"b=1"),
        (b"http://other.test/?b=1", "/", b"b=1"),
        (b"http://other.test/a?b=http://third.test/", "/a", b"b=http://third.test/"),
    ],
)
async def test_a_target_with_an_authority_need_not_have_a_path(
    target: bytes, path: str, query: bytes
) -> None:
    """An empty path means the root (RFC 9112, section 3.2.1)."""
    connection = Connection()

    await connection.send(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    (scope,) = connection.scopes
    assert (scope["path"], scope["query_string"]) == (path, query)
    assert (b"host", b"other.test") in scope["headers"]


@pytest.mark.parametrize(
    "target",
    [
        b"ftp://service.test/a",
        b"http://",
        b"http:///a",
        b"http://user:password@service.test/a",
        b"http://service.test:service.test@evil.test/a",
        b"http://[service.test]/a",
        b"http://service.test:800000/a",
    ],
)
async def test_a_target_of_any_other_form_is_refused(target: bytes) -> None:
    """However the parser treats it, the answer is a problem."""
    connection = Connection()

    await connection.send(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    assert connection.problem["status"] == 400
    assert not connection.scopes


@pytest.mark.parametrize(
    "host",
    [
        b"a/b",
        b"a, b",
        b"user@service.test",
        b"service.test:x",
        b"service.test:1@evil.test",
        b"service.test:123456",
        b"[::1",
        b"\xe4.test",
        b"%zz",
        b"a" * 300,
    ],
)
async def test_an_invalid_host_is_refused(host: bytes) -> None:
    """A proxy could read it as a different host (RFC 9112, section 3.2)."""
    connection = Connection()

    await connection.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")

    assert connection.problem["status"] == 400
    assert not connection.scopes


@pytest.mark.parametrize(
    "host", [b"", b"service.test", b"Service.test:80", b"[::1]:8000", b"a_b.test", b"127.0.0.1:"]
)
async def test_every_valid_host_reaches_the_application(host: bytes) -> None:
    """The host may have a port, and the port may be empty."""
    connection = Connection()

    await connection.send(b"GET / HTTP/1.1\r\nHost: " + host + b" \r\n\r\n")

    assert (b"host", host) in connection.scopes[0]["headers"]


async def test_a_broken_request_that_waits_for_its_turn_is_not_started() -> None:
    """It is refused once the requests before it have been answered."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(REQUEST + CHUNKED + b"nonsense\r\n")

    connection.may_answer.set()
    await connection.settle(20)

    assert len(connection.scopes) == 1
    answers = connection.transport.written.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"204", b"400"]


async def test_each_request_has_a_context_of_its_own() -> None:
    """A pipelined request does not see what the one before it has bound to its context."""
    connection = Connection()

    await connection.send(REQUEST * 3)
    await connection.settle(20)

    assert connection.seen_in_context == [None, None, None]


async def test_data_after_the_last_answer_is_read_within_limits() -> None:
    """Reading stops after a few seconds or a certain number of bytes."""
    connection = Connection()
    await connection.send(b"nonsense\r\n\r\n")

    for _ in range(int(LINGER_SECONDS) - 1):
        await connection.send(b"x")
        connection.pass_time(1)
    still_open = not connection.transport.closed
    await connection.send(b"x")
    connection.pass_time(1)
    assert still_open
    assert connection.transport.closed

    other = Connection()
    await other.send(b"nonsense\r\n\r\n", *[bytes(LINGER_BYTES // 4)] * 5)
    assert other.transport.closed
