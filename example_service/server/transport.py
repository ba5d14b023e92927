"""A transport that disconnects slow clients and closes connections without losing responses."""

import asyncio
from typing import Any, Final

SLOWEST_BYTES_PER_SECOND: Final = 500
"""A client that reads a response more slowly than this is disconnected."""

_END_OF_STREAMED_HEAD: Final = b"transfer-encoding: chunked\r\n\r\n"

LINGER_QUIET_SECONDS: Final = 2.0
LINGER_SECONDS: Final = 10.0
LINGER_BYTES: Final = 32 * 1024 * 1024


class PatientTransport(asyncio.Transport):
    """Wraps the transport of one connection.

    - `close` works in stages (RFC 9112, section 9.6): it ends the response, then reads and discards
      what the client still sends, and closes when the client does. Closing a connection with unread
      bytes would reset it, and the client might lose the response. Discarding ends after 2 seconds
      without a byte, 10 seconds in total, or 32 MiB.
    - `check` also disconnects a client that does not read.
    - `hold_reading` stops reading independently of `pause_reading`, which uvicorn uses.
    - The head of a response is sent together with its body, which saves a system call and a packet.
      The head of a response in chunks is sent at once, because its body may take a while.
    - Methods have no effect on a closed connection.

    Args:
        transport: The transport to wrap.
        loop: The event loop of the transport.
        send_seconds: The interval, in seconds, in which a client must read at least
            `SLOWEST_BYTES_PER_SECOND` on average.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, send_seconds: float
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._send_seconds = send_seconds
        self._writes_head = False
        self._head: bytes = b""
        self._written = 0
        self._enough = 0
        self._stalled_at: float | None = None
        self._closing_since: float | None = None
        self._quiet_since = 0.0
        self._discarded = 0
        self._is_paused = False
        self._is_held = False
        self._has_ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the connection, such as its addresses."""
        return self._transport.get_extra_info(name, default)

    def begin_response(self) -> None:
        """Expect the head of a response as the next bytes, and its body after it."""
        self._writes_head = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, unless the connection is closing."""
        if self._closing_since is not None:
            return
        if self._writes_head:
            self._writes_head = False
            head = bytes(data)
            if not head.endswith(_END_OF_STREAMED_HEAD):
                self._head = head
                return
        elif self._head:
            data, self._head = self._head + data, b""
        self._written += len(data)
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether the connection no longer sends anything."""
        return self._closing_since is not None or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`."""
        self._is_paused = True
        self._read_or_wait()

    def resume_reading(self) -> None:
        """Resume reading."""
        self._is_paused = False
        self._read_or_wait()

    def hold_reading(self, *, hold: bool) -> None:
        """Stop reading, or resume it unless it is paused."""
        if hold is not self._is_held:
            self._is_held = hold
            self._read_or_wait()

    def _read_or_wait(self) -> None:
        if self._has_ended or self._transport.is_closing():
            return
        is_closing = self._closing_since is not None
        if (self._is_paused or self._is_held) and not is_closing:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def end_reading(self) -> None:
        """Record that the client has closed its end of the connection."""
        self._has_ended = True
        if self._closing_since is not None:
            self._transport.close()

    def close(self) -> None:
        """End the response, and close the connection once the client has had time to read it."""
        if self.is_closing():
            return
        if self._head:
            self.write(b"")
        self._closing_since = self._quiet_since = self._loop.time()
        if self._has_ended:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._read_or_wait()

    def close_now(self) -> None:
        """Close the connection without waiting for the client."""
        self._transport.close()

    def abort(self) -> None:
        """Close the connection immediately, and drop unsent bytes."""
        self._transport.abort()

    def discard(self, count: int) -> None:
        """Count bytes that arrived after `close`."""
        self._discarded += count
        self._quiet_since = self._loop.time()
        if self._discarded > LINGER_BYTES:
            self._transport.close()

    def check(self, now: float) -> None:
        """Close the connection if the client is too slow. Called once a second.

        Args:
            now: The time on the event loop's clock, in seconds.
        """
        self._abort_if_stalled(now)
        if self._closing_since is not None and (
            now - self._quiet_since >= LINGER_QUIET_SECONDS
            or now - self._closing_since >= LINGER_SECONDS
        ):
            self._transport.close()

    def _abort_if_stalled(self, now: float) -> None:
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            self._stalled_at = None
            return
        taken = self._written - waiting
        if self._stalled_at is None or taken >= self._enough:
            self._stalled_at = now + self._send_seconds
            self._enough = taken + int(self._send_seconds * SLOWEST_BYTES_PER_SECOND)
        elif now >= self._stalled_at:
            self.abort()
