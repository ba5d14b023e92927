"""The HTTP parser of the server, stricter than it comes, and with problems as its own answers."""

import asyncio
import json
import uuid
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Final, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from example_service.core.lifecycle import is_draining

MAX_HEAD_BYTES: Final = 65_536
"""How long a request's target and lines of headers may be together."""

HEAD_SECONDS: Final = 30.0
"""How long a request's head may take, from its first byte."""

_LINGER_SECONDS: Final = 2.0
_OFFER: Final = frozenset((b"upgrade", b"http2-settings"))
_AROUND_A_HEADER: Final = len(b": \r\n")


class _Refusal(NamedTuple):
    status: HTTPStatus
    detail: str


_TOO_LONG: Final = _Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"Target and headers must have at most {MAX_HEAD_BYTES} bytes.",
)
_TOO_SLOW: Final = _Refusal(
    HTTPStatus.REQUEST_TIMEOUT, f"Target and headers must come within {HEAD_SECONDS:g} seconds."
)
_NOT_ONE_HOST: Final = _Refusal(
    HTTPStatus.BAD_REQUEST, "A request must name its host in one `Host` header."
)

_NO_TUNNEL: Final = _Refusal(HTTPStatus.BAD_REQUEST, "This server is no proxy.")


class ProblemProtocol(HttpToolsProtocol):
    """Answers what is no proper HTTP with `application/problem+json`, as the application would.

    The application never sees such a request, so it has no path and no id; both are made up here.
    Besides what cannot be parsed, these are refused, for the parser lets them pass:

    - a head longer than `MAX_HEAD_BYTES`, which would be kept in memory until its end;
    - a head that takes longer than `HEAD_SECONDS`, which would keep the connection;
    - HTTP/1.1 without exactly one `Host`, and anything with several (RFC 9112, section 3.2), for
      which of them counts is a matter of who reads it.

    Trailers are dropped: the parser would add them to headers that have been looked at already
    (RFC 9110, section 6.5.1). So is an offer to change the protocol, which the parser would take
    for the end of the request, and its body for another one.

    While the process drains, each answer is the last of its connection.
    """

    # What is true of most connections stands here once.
    _refusal: _Refusal | None = None
    _is_refused = False
    _has_begun = False
    _in_head = True
    _heads = 0
    _has_advanced = False
    _idle_bytes = 0
    _idle_timer: asyncio.TimerHandle | None = None
    _late_answer: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection."""
        super().connection_made(transport)
        # Until its first byte a connection is idle, as it is between requests.
        self._await_advance(max(HEAD_SECONDS, self.timeout_keep_alive))

    def connection_lost(self, exc: Exception | None) -> None:
        """End with a connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and refuse what does not come to its end.

        Bytes that begin or end no head and belong to no body that is wanted are counted and timed:
        those of a head, of trailers, and of lines between requests.
        """
        if self._is_refused:
            return
        self._has_advanced = False
        if not self._has_begun:
            self._has_begun = True
            self._stop_waiting()
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
            return
        if (self._in_head or not self._has_advanced) and self._idle_timer is None:
            self._await_advance()
        self._idle_bytes = 0 if self._has_advanced else self._idle_bytes + len(data)
        if self._idle_bytes <= MAX_HEAD_BYTES:
            return
        if self._in_head:
            self._refuse(_TOO_LONG)
        else:
            self.transport.close()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                return
            # The same request once more without the offer, and then what follows its head.
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
            lines += [b"%b: %b" % header for header in _without_offer(self.headers)]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")
            self._parse(data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._has_advanced = True
        self._in_head = True
        self._heads += 1

    def on_headers_complete(self) -> None:
        """Check the head of a request, and hand it to the application.

        Raises:
            ValueError: It is refused; the parser passes this on as an error of its own.
        """
        hosts = sum(name == b"host" for name, _ in self.headers)
        has_offer = self.parser.should_upgrade()
        if len(self.url) + _length(self.headers) > MAX_HEAD_BYTES:
            self._refusal = _TOO_LONG
        elif hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._refusal = _NOT_ONE_HOST
        elif has_offer and self.parser.get_method() == b"CONNECT":
            self._refusal = _NO_TUNNEL
        if self._refusal is not None:
            raise ValueError(self._refusal.detail)
        if has_offer and not self._should_upgrade():
            return
        self._advance()
        self._in_head = False
        super().on_headers_complete()
        if is_draining():
            self.close_with_answer()
        if not has_offer:
            self.headers = _Trailers()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; after the answer it is thrown away, in as much time as a head."""
        super().on_body(body)
        if self.cycle.response_complete:
            self._idle_bytes -= len(body)
        else:
            self._advance()

    def on_message_complete(self) -> None:
        """End a request."""
        if self._in_head:
            return
        super().on_message_complete()
        self._advance()

    def on_response_complete(self) -> None:
        """End an answer; a refusal that had to wait for it is next."""
        super().on_response_complete()
        if self._late_answer is not None and self.cycle.response_complete:
            self._end_with(self._late_answer)

    def close_with_answer(self) -> None:
        """End the connection with the answer to its last request, if that has not begun.

        In the drain: the client takes its next request elsewhere, so that the end of it, which
        closes idle connections, finds none that a request is on its way through.
        """
        if self._is_answering() and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _advance(self) -> None:
        self._has_advanced = True
        self._stop_waiting()

    def _await_advance(self, seconds: float = HEAD_SECONDS) -> None:
        # A head that comes in one piece, as nearly all do, costs no timer but the connection's.
        self._idle_timer = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _give_up(self) -> None:
        self._idle_timer = None
        if self._is_answering():
            self._await_advance()
        elif self._in_head and self._heads:
            self._refuse(_TOO_SLOW)
        else:
            # Browsers open connections in advance, and take an answer for one to their request.
            self.transport.close()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _refuse(self, refusal: _Refusal) -> None:
        self._refusal = refusal
        self.send_400_response(refusal.detail)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request, and end the connection with that.

        Args:
            msg: What was wrong, in words of the server; those of this class take their place.
        """
        self._is_refused = True
        self._stop_waiting()
        answer = self._problem(self._refusal or _Refusal(HTTPStatus.BAD_REQUEST, msg))
        if not self._is_answering():
            self._end_with(answer)
        elif self._in_head or not self.cycle.more_body or self.pipeline:
            # The answers to earlier requests of the connection come first, or this would be theirs.
            self._late_answer = answer
        elif self.cycle.response_started:
            self.transport.close()
        else:
            # The body of this request is broken: the application hears that its client has gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._end_with(answer)

    def _problem(self, refusal: _Refusal) -> bytes:
        status, request_id = refusal.status, uuid.uuid4()
        body = json.dumps(
            {
                "type": f"/problems/http-{status}",
                "title": status.phrase,
                "status": status,
                "detail": refusal.detail,
                "instance": request_id.urn,
                "request_id": request_id.hex,
            }
        ).encode()
        head = [
            f"HTTP/1.1 {status} {status.phrase}".encode(),
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: application/problem+json",
            b"content-length: %d" % len(body),
            b"cache-control: no-store",
            b"x-request-id: " + request_id.hex.encode(),
            b"connection: close",
        ]
        return b"\r\n".join(head) + b"\r\n\r\n" + body

    def _end_with(self, answer: bytes) -> None:
        self._late_answer = None
        if self.transport.is_closing():
            return
        self.transport.write(answer)
        # What the client still sends is read for a while: closing a connection with unread bytes
        # resets it, and the client may never see the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()


class _Trailers(list[tuple[bytes, bytes]]):
    """Where the parser puts what comes after a body: nowhere."""

    def append(self, _header: tuple[bytes, bytes], /) -> None:
        """Drop it."""


def _without_offer(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The headers but for an offer to change the protocol, which a server need not take."""
    for name, value in headers:
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            kept = [option for option in options if option.lower() not in _OFFER]
            yield name, b", ".join(kept)
        elif name not in _OFFER:
            yield name, value


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + _AROUND_A_HEADER for name, value in headers)
