"""uvicorn's HTTP/1.1 protocol with limits on the resources of a connection."""

import asyncio
import heapq
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from example_service.api.request.proxies import RootPath, with_plain_address
from example_service.core.lifecycle import is_draining
from example_service.server import refusals
from example_service.server.heads import (
    fault_of_headers,
    origin_form,
    unparsed_headers,
    without_offer,
)
from example_service.server.refusals import MAX_HEAD_BYTES, Refusal
from example_service.server.transport import PatientTransport

MAX_PIPELINED: Final = 32
"""The most requests of one connection that wait. Further ones are not read until there is room."""

# Received bytes are parsed in pieces of this size, which fit 20 of the shortest requests.
_PIECE_BYTES: Final = 512
# The framing of each chunk of a body: its size and two line ends.
_CHUNK_FRAMING_BYTES: Final = 16
# One in this many connections is closed when there are too many.
_MAKE_ROOM: Final = 16
_VERSIONS: Final = frozenset(("1.0", "1.1"))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of connections.

    Attributes:
        connections: The maximum number of concurrent connections.
        receive_seconds: How long the head of a request may take from its first byte, in seconds.
        send_seconds: How long a client may go without reading its responses, in seconds.
    """

    connections: int
    receive_seconds: float
    send_seconds: float


class _Stage(Enum):
    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class ProblemProtocol(HttpToolsProtocol):
    """One connection. Invalid HTTP is refused with a problem, as in the application.

    It adds the following to uvicorn's protocol, each with a test that fails without it:

    - a limit on the size of a head and of the framing of a body (`test_a_longer_head_is_refused`,
      `test_long_chunk_extensions_are_refused`), and on the time for a head
      (`test_a_head_that_takes_too_long_is_refused`);
    - a limit on the number of waiting requests
      (`test_a_connection_keeps_a_bounded_number_of_requests_waiting`);
    - a time limit for reading responses (`test_a_client_that_does_not_read_is_disconnected`), and
      no further request before they are read
      (`test_the_next_request_waits_until_the_client_has_read_the_answer`);
    - the head of a response and its body in one packet
      (`test_the_head_of_a_response_is_sent_together_with_its_body`);
    - closing in stages, so that a refusal reaches a client that is still sending
      (`test_a_client_in_the_middle_of_sending_can_read_why_it_was_refused`);
    - responses to clients that have closed their end of the connection
      (`test_a_client_that_closes_its_end_gets_its_answers`);
    - a limit on connections: above it, those that have been idle longest are closed
      (`test_one_connection_too_many_closes_those_without_a_request`), then those whose clients do
      not read (`test_a_new_connection_replaces_one_whose_client_does_not_read`);
    - only HTTP/1.0 and HTTP/1.1 (`test_an_unknown_version_is_refused`), `chunked` as the only
      transfer coding (`test_a_transfer_coding_other_than_chunked_is_refused`), exactly one valid
      `Host` (`test_a_request_without_one_host_is_refused`), which the authority of the target
      replaces (`test_the_authority_of_the_target_wins_over_the_host`), no trailers
      (`test_trailers_do_not_become_headers`) and no protocol upgrades
      (`test_an_offer_to_change_the_protocol_is_ignored`);
    - no interim response to HTTP/1.0 (`test_http_1_0_gets_no_interim_response`).

    While the process drains, each response closes its connection.

    Args:
        limits: The limits of connections.
        path_prefix: The path under which clients see the service, for the links in refusals.
    """

    transport: PatientTransport
    idle_since = 0.0
    _refusal: Refusal | None = None
    _late_refusal: Refusal | None = None
    _stage = _Stage.BETWEEN
    _messages = 0
    _checked_messages = 0
    _head_ends_at = 0.0
    _framing_bytes = 0
    _unparsed = b""
    _running: RequestResponseCycle | None = None
    _is_completing = False
    _has_ended = False

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        path_prefix: RootPath,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._path_prefix = path_prefix

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection. It is idle until its first byte."""
        super().connection_made(PatientTransport(transport, self.loop, self._limits.send_seconds))
        self._become_idle()
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after a connection, and notify the running request that the client has gone."""
        self._unparsed = b""
        self.pipeline.clear()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer the pending requests of a client that has closed its end of the connection.

        Returns:
            True, which keeps the other direction of the connection open.
        """
        self._has_ended = True
        self.transport.end_reading()
        self._end_if_done()
        return True

    def data_received(self, data: bytes) -> None:
        """Parse received bytes until the limit of waiting requests is reached."""
        if self.transport.is_closing():
            self.transport.discard(len(data))
            return
        if not self._unparsed and len(data) <= _PIECE_BYTES and self._has_room():
            # Most requests arrive in one piece.
            self._feed(data)
            if not self._unparsed:
                return
        else:
            self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        while self._unparsed and self._has_room():
            if self.transport.is_closing():
                self._unparsed = b""
                break
            piece, self._unparsed = self._unparsed[:_PIECE_BYTES], self._unparsed[_PIECE_BYTES:]
            self._feed(piece)
        self.transport.hold_reading(hold=bool(self._unparsed))

    def _has_room(self) -> bool:
        return (
            len(self.pipeline) < MAX_PIPELINED
            and self._late_refusal is None
            and not self.flow.write_paused
        )

    def _feed(self, piece: bytes) -> None:
        self._framing_bytes += len(piece)
        earlier = self._messages
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._unparsed = piece[upgrade.args[0] :] + self._unparsed
            self._parse_without_offer()
        except httptools.HttpParserError as error:
            # If the invalid request follows another one, it is unknown where it begins.
            beginning = piece + self._unparsed if self._messages == earlier + 1 else b""
            if beginning and self._stage is _Stage.HEAD:
                self.headers = unparsed_headers(beginning)
            self._refuse(self._refusal or refusals.refusal_of(str(error), beginning))
        else:
            if self._framing_bytes > MAX_HEAD_BYTES:
                in_body = self._stage is _Stage.BODY
                self._refuse(refusals.FRAMING_TOO_LONG if in_body else refusals.HEAD_TOO_LONG)

    def _parse_without_offer(self) -> None:
        """Parse a head again without its request for a protocol upgrade (RFC 9110, section 7.8).

        With it, the parser would end the request after the head, and parse its body as another one.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in without_offer(self.headers)]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n")

    def on_message_begin(self) -> None:
        """Start a request."""
        super().on_message_begin()
        self._stage = _Stage.HEAD
        self._messages += 1
        self._framing_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header.

        White space behind the value is not part of it (RFC 9110, section 5.5), but the parser does
        not remove it.
        """
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Check the head of a request, and pass it to the application.

        Raises:
            ValueError: The request is refused. The parser wraps this in its own exception.
        """
        version = self.parser.get_http_version()
        has_offer = self.parser.should_upgrade()
        if self._framing_bytes > MAX_HEAD_BYTES or len(self.url) >= MAX_HEAD_BYTES:
            self._refusal = refusals.HEAD_TOO_LONG
        elif version not in _VERSIONS:
            self._refusal = refusals.UNKNOWN_VERSION
        elif has_offer and self.parser.get_method() == b"CONNECT":
            self._refusal = refusals.NO_TUNNEL
        else:
            self._refusal = self._fault_of_head(version)
        if self._refusal is not None:
            raise ValueError(self._refusal.detail)
        if has_offer:
            return
        if version == "1.0":
            # Such a client does not understand an interim response (RFC 9110, section 10.1.1).
            self.expect_100_continue = False
        super().on_headers_complete()
        self._stage = _Stage.BODY
        self._framing_bytes = 0
        # Otherwise trailers would be added to the headers without a check (RFC 9110, section
        # 6.5.1).
        self.headers = []
        if is_draining():
            self.close_with_answer()

    def _fault_of_head(self, version: str) -> Refusal | None:
        fault = fault_of_headers(self.headers, version)
        if fault is None and not self.url.startswith(b"/"):
            target = origin_form(self.url, self.headers)
            if isinstance(target, Refusal):
                return target
            for_server = target == b"*" and self.parser.get_method() == b"OPTIONS"
            if not target.startswith(b"/") and not for_server:
                return refusals.FOREIGN_TARGET
            self.url = target
        return fault

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body."""
        if not self.cycle.response_complete:
            self._framing_bytes -= len(body) + _CHUNK_FRAMING_BYTES
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._stage is _Stage.BODY:
            self._stage = _Stage.BETWEEN
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        if not cycle.waiting_for_100_continue and cycle.scope["method"] != "HEAD":
            self.transport.begin_response()
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """End a response, and start the next request once the client has read enough of it.

        This replaces uvicorn's method, because a timer for each idle connection costs every request
        more than the rest of this class. `check` closes idle connections.
        """
        if self.flow.write_paused:
            self._is_completing = True
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
                # The rest of its body may be here, and there is room for another request.
                if self._unparsed:
                    self._parse()
                return
        self._become_idle()
        if self._late_refusal is not None:
            self._end_with(self._late_refusal)
        if self._unparsed:
            self._parse()
        if self._has_ended:
            self._end_if_done()

    def resume_writing(self) -> None:
        """Continue after the client has read enough."""
        super().resume_writing()
        if self._is_completing:
            self._is_completing = False
            self.on_response_complete()
        else:
            self._parse()

    def check(self, now: float) -> None:
        """Disconnect the client if it exceeds a time limit or is idle. Called once a second.

        Args:
            now: The time on the event loop's clock, in seconds.
        """
        self.transport.check(now)
        if self._stage is not _Stage.HEAD or self._unparsed:
            self._checked_messages = 0
            if not self.is_answering() and now - self.idle_since >= self.timeout_keep_alive:
                self.transport.close()
        elif self._checked_messages != self._messages:
            self._checked_messages = self._messages
            self._head_ends_at = now + self._limits.receive_seconds
        elif now >= self._head_ends_at and self._late_refusal is None:
            self._refuse(refusals.HEAD_TOO_SLOW)

    def close_with_answer(self) -> None:
        """Close the connection after the current response, unless its headers were sent already.

        Used while draining. The client sends its next request to another instance, so no request
        is on its way when idle connections are closed at the end of the drain.
        """
        if self.is_answering() and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def is_new(self, since: float) -> bool:
        """Whether the client has connected after `since`, and its first request has not arrived."""
        return self._running is None and self.idle_since > since

    def shutdown(self) -> None:
        """Close the connection after the pending requests are answered."""
        if self.is_answering():
            super().shutdown()
        else:
            self.transport.close_now()

    def _become_idle(self) -> None:
        self.idle_since = self.loop.time()

    def is_answering(self) -> bool:
        """Whether a request is being processed, or the client has not read its response yet."""
        running = self._running
        return self._is_completing or (running is not None and not running.response_complete)

    def _make_room(self) -> None:
        """Abort the connections that have been idle longest.

        If none is idle, abort those whose clients do not read; if all read, refuse this one.
        """
        others = [
            connection
            for connection in self.connections
            if isinstance(connection, ProblemProtocol) and connection is not self
        ]
        idle = [connection for connection in others if not connection.is_answering()]
        unneeded = idle or [connection for connection in others if connection.flow.write_paused]
        if not unneeded:
            self._end_with(refusals.TOO_MANY_CONNECTIONS)
        count = max(1, len(self.connections) // _MAKE_ROOM)
        for connection in heapq.nsmallest(
            count, unneeded, key=lambda connection: connection.idle_since
        ):
            self.connections.discard(connection)
            # Closing it would wait for a client that has not read everything.
            cast("PatientTransport", connection.transport).abort()

    def _end_if_done(self) -> None:
        """Close the connection after the last response, if the client has closed its end."""
        if not self._has_ended or self._unparsed or self._late_refusal is not None:
            return
        if self._stage is not _Stage.BETWEEN:
            self._refuse(refusals.INCOMPLETE)
        elif not self.is_answering():
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Refuse a request, and close the connection."""
        self._unparsed = b""
        if self._stage is _Stage.BODY and not self.pipeline:
            self._end_running(refusal)
            return
        if self._stage is _Stage.BODY:
            # The body of the last waiting request is invalid: drop that request.
            self.pipeline.popleft()
        if self.is_answering():
            # The client would take this for the response to an earlier request, so it must wait.
            self._late_refusal = refusal
        else:
            self._end_with(refusal)

    def _end_running(self, refusal: Refusal) -> None:
        """End the request that is being processed, because its body is invalid."""
        if self.cycle.response_started:
            self.transport.close()
            return
        # Notify the application that the client has disconnected.
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._end_with(refusal)

    def _end_with(self, refusal: Refusal) -> None:
        self._late_refusal = None
        in_body = self._stage is _Stage.BODY
        headers = self.scope["headers"] if in_body else self.headers or []
        prefix = self._path_prefix.of(with_plain_address(self.client), headers)
        self.transport.write(refusals.answer(refusal, self.server_state.default_headers, prefix))
        self.transport.close()
