"""The HTTP parser of the server, stricter than it comes, and with problems as its own answers."""

import asyncio
import json
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES: Final = 65_536
"""How long a request's target and lines of headers may be together."""

HEAD_SECONDS: Final = 30.0
"""How long a request's head may take, from the opening of a connection or its first byte."""

_LINGER_SECONDS: Final = 2.0
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


class ProblemProtocol(HttpToolsProtocol):
    """Answers what is no proper HTTP with `application/problem+json`, as the application would.

    The application never sees such a request, so it has no path and no id; both are made up here.
    Besides what cannot be parsed, these are refused, for the parser lets them pass:

    - a head longer than `MAX_HEAD_BYTES`, which would be kept in memory until its end;
    - a head that takes longer than `HEAD_SECONDS`, which would keep the connection;
    - HTTP/1.1 without exactly one `Host`, and anything with several (RFC 9112, section 3.2), for
      which of them counts is a matter of who reads it.

    Trailers are dropped: the parser would add them to headers that have been looked at already
    (RFC 9110, section 6.5.1).
    """

    # What is true of most connections stands here once.
    _refusal: _Refusal | None = None
    _is_refused = False
    _in_head = True
    _heads = 0
    _further_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End with a connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and refuse a head that does not end."""
        if self._is_refused:
            return
        heads = self._heads
        super().data_received(data)
        if self._in_head and self._head_timer is None:
            self._await_head()
        # What came in one piece with the beginning of a head may belong to the request before.
        if self._in_head and self._heads == heads:
            self._further_bytes += len(data)
            if self._further_bytes > MAX_HEAD_BYTES and not self._is_refused:
                self._refusal = _TOO_LONG
                self.send_400_response(_TOO_LONG.detail)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._heads += 1
        self._further_bytes = 0

    def on_headers_complete(self) -> None:
        """Check the head of a request, and hand it to the application.

        Raises:
            ValueError: It is refused; the parser passes this on as an error of its own.
        """
        self._in_head = False
        self._stop_waiting()
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(self.url) + _length(self.headers) > MAX_HEAD_BYTES:
            self._refusal = _TOO_LONG
        elif len(hosts) != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._refusal = _NOT_ONE_HOST
        if self._refusal is not None:
            raise ValueError(self._refusal.detail)
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.headers = []

    def _await_head(self) -> None:
        # A head that comes in one piece, as nearly all do, costs no timer but the connection's.
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        cycle: RequestResponseCycle | None = self.cycle
        if self._heads == 0:
            # Browsers open connections in advance, and take an answer for one to their request.
            self.transport.close()
        elif cycle is not None and not cycle.response_complete:
            self._await_head()  # The answer to an earlier request has to come first.
        elif not self._is_refused:
            self._refusal = _TOO_SLOW
            self.send_400_response(_TOO_SLOW.detail)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request, and end the connection.

        What the client still sends is read for a while: closing a connection with unread bytes
        resets it, and the client may never see the answer.

        Args:
            msg: What was wrong, in words of the server; those of this class take their place.
        """
        status, detail = self._refusal or _Refusal(HTTPStatus.BAD_REQUEST, msg)
        request_id = uuid.uuid4()
        body = json.dumps(
            {
                "type": f"/problems/http-{status}",
                "title": status.phrase,
                "status": status,
                "detail": detail,
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
        self._is_refused = True
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + _AROUND_A_HEADER for name, value in headers)
