"""Which connections make room for a new one when there are too many."""

from uvicorn.server import ServerState

from tests.unit.server.connection import REQUEST, Connection


async def test_one_connection_too_many_closes_those_without_a_request() -> None:
    """The one that has been idle longest is closed; connections with a request stay open."""
    state = ServerState()
    busy, idle, young = (Connection(state=state, max_connections=3) for _ in range(3))
    busy.may_answer.clear()
    await busy.send(REQUEST)
    idle.protocol.idle_since, young.protocol.idle_since = 1.0, 2.0
    await young.send(b"GET / ")

    new = Connection(state=state, max_connections=3)

    connections = (busy, idle, young, new)
    assert [each.transport.closed for each in connections] == [False, True, False, False]


async def test_a_connection_is_refused_if_all_others_have_a_request() -> None:
    """The client may retry after a second."""
    state = ServerState()
    busy = Connection(state=state, max_connections=1)
    busy.may_answer.clear()
    await busy.send(REQUEST)

    new = Connection(state=state, max_connections=1)

    assert new.problem["status"] == 503
    assert "retry-after: 1" in new.answer[1]
    assert new.transport.ended
    assert not busy.transport.ended


async def test_a_new_connection_replaces_one_whose_client_does_not_read() -> None:
    """If every connection has a request, those that wait for their clients are aborted."""
    state = ServerState()
    busy, unread = (Connection(state=state, max_connections=2) for _ in range(2))
    busy.may_answer.clear()
    unread.may_answer.clear()
    await busy.send(REQUEST)
    await unread.send(REQUEST)
    unread.transport.unsent = 100_000
    unread.protocol.pause_writing()

    new = Connection(state=state, max_connections=2)
    unread.protocol.connection_lost(None)

    connections = (busy, unread, new)
    assert [each.transport.aborted for each in connections] == [False, True, False]
    assert not new.transport.ended


async def test_an_idle_connection_that_has_to_go_does_not_wait_for_its_client() -> None:
    """A client that does not read the rest of a response would keep it open for ever."""
    state = ServerState()
    idle = Connection(state=state, max_connections=1)
    await idle.send(REQUEST)
    idle.transport.unsent = 100

    Connection(state=state, max_connections=1)

    assert idle.transport.aborted
