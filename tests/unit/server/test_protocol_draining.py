"""How connections are closed while they are idle and while the process drains."""

import asyncio

from example_service.core.lifecycle import begin_draining, end_draining
from tests.unit.server.connection import (
    HEAD_SECONDS,
    HOST,
    REQUEST,
    Connection,
)


async def test_while_the_process_drains_each_answer_ends_its_connection() -> None:
    """The client opens a new connection for its next request, which reaches another instance."""
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
    assert connection.transport.ended


async def test_an_answer_that_has_not_begun_may_still_end_its_connection() -> None:
    """Its request arrived before the drain began."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

    connection.protocol.close_with_answer()
    connection.may_answer.set()
    for _ in range(5):
        await asyncio.sleep(0)

    assert connection.transport.written.count(b"connection: close") == 1
    assert connection.transport.ended


async def test_an_answer_that_has_begun_keeps_its_connection() -> None:
    """Its headers promised this, and the client may already be sending the next request."""
    connection = Connection()
    connection.may_answer.clear()
    await connection.send(b"GET /begins HTTP/1.1\r\n" + HOST + b"\r\n")

    connection.protocol.close_with_answer()
    connection.may_answer.set()
    await connection.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

    assert not connection.transport.closed
    assert len(connection.scopes) == 2


async def test_a_connection_is_new_until_its_first_request_or_a_time_limit() -> None:
    """At the end of the drain, the server waits for the first request, but not for a spare one."""
    connection = Connection()
    opened_at = connection.protocol.idle_since
    assert connection.protocol.is_new(opened_at - 1)
    assert not connection.protocol.is_new(opened_at)

    await connection.send(REQUEST)

    assert not connection.protocol.is_new(opened_at - 1)


async def test_an_idle_connection_stays_open_until_the_drain_ends() -> None:
    """A request to close with the next answer has no effect on it."""
    connection = Connection()

    connection.protocol.close_with_answer()

    assert not connection.transport.closed


async def test_a_connection_opened_in_advance_is_idle_for_as_long_as_any() -> None:
    """Proxies open spare ones; the time limit of a head starts with its first byte."""
    connection = Connection(keep_alive_seconds=75)
    connection.pass_time(74)
    assert not connection.transport.closed

    await connection.send(b"GET / HTTP/1.1\r\n")
    connection.pass_time(HEAD_SECONDS - 1)
    await connection.send(HOST + b"\r\n")
    assert len(connection.scopes) == 1

    idle = Connection(keep_alive_seconds=75)
    idle.pass_time(75)
    assert idle.transport.ended


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    """The time starts again at the end of each response."""
    connection = Connection(keep_alive_seconds=5)
    connection.pass_time(4)
    await connection.send(REQUEST)

    connection.pass_time(4)
    assert not connection.transport.ended

    connection.pass_time(1)
    assert connection.transport.ended


async def test_a_connection_with_a_running_request_is_not_idle() -> None:
    """A request may take longer than a connection may be idle."""
    connection = Connection(keep_alive_seconds=5)
    connection.may_answer.clear()
    await connection.send(REQUEST)

    connection.pass_time(60)

    assert not connection.transport.ended
