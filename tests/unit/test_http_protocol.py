"""What the server answers to something that is no HTTP."""

import asyncio
import json

import uvicorn
from uvicorn.lifespan.off import LifespanOff
from uvicorn.server import ServerState

from example_service.http_protocol import ProblemProtocol


class RecordingTransport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the bytes."""
        self.written += data

    def close(self) -> None:
        """Note that the connection is closed."""
        self.closed = True

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return self.closed


async def never_called(*_: object) -> None:
    """An application that must not see the request."""
    raise AssertionError


async def test_what_is_no_http_gets_a_problem_and_the_connection_is_closed() -> None:
    """The body has all members of a problem, and repeats nothing of what was sent."""
    config = uvicorn.Config(lambda: never_called, factory=True, log_config=None, ws="none")
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    protocol = ProblemProtocol(config, state, LifespanOff(config).state)
    transport = RecordingTransport()
    protocol.connection_made(transport)

    protocol.data_received(b"SECRET nonsense\r\n\r\n")

    head, _, body = transport.written.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    problem = json.loads(body)
    assert status == "HTTP/1.1 400 Bad Request"
    assert "date: today" in headers
    assert "content-type: application/problem+json" in headers
    assert f"content-length: {len(body)}" in headers
    assert f"x-request-id: {problem['request_id']}" in headers
    assert problem["type"] == "/problems/http-400"
    assert (problem["title"], problem["status"]) == ("Bad Request", 400)
    assert problem["instance"].startswith("urn:uuid:")
    assert b"SECRET" not in transport.written
    assert transport.closed
