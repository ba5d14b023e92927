"""Standard output, written to without waiting for whoever reads it."""

import logging
import os
import select
import stat
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Final

MOST_WAITING_BYTES: Final = 1_048_576
"""How much text may wait for a reader that is slow; more than that is lost, and counted."""

_FINISH_SECONDS: Final = 1.0
# A pipe that can be written to takes so many bytes at once.
_ATOMIC_BYTES: Final = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512

_logger = logging.getLogger("example_service.log")


class Output:
    """Writes lines to standard output, or keeps them for a thread that waits for its reader.

    A pipe that nobody reads blocks the process that writes to it, and with it the event loop.

    Args:
        most_waiting_bytes: How much may wait; what is lost beyond that is logged afterwards.
    """

    def __init__(self, most_waiting_bytes: int = MOST_WAITING_BYTES) -> None:
        self._most_waiting_bytes = most_waiting_bytes
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._writer: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Write a text, if there still is somewhere to write to; never waits, never fails."""
        # The stream is looked up each time, because tests and supervisors replace it.
        try:
            stream = sys.stdout
            try:
                descriptor = stream.fileno()
            except OSError:
                # One that is kept in memory.
                stream.write(text)
                return
            self._write_now_or_later(descriptor, text.encode(errors="backslashreplace"))
        except BrokenPipeError:
            # The reader has gone, as with `| head`, and does not come back.
            _discard_output()
        except (OSError, ValueError, AttributeError):
            # A full disk, a closed stream or none at all must not fail the request that is logged.
            return

    def _write_now_or_later(self, descriptor: int, data: bytes) -> None:
        with self._lock:
            if self._writer is None and _takes(descriptor, len(data)):
                os.write(descriptor, data)
            elif self._waiting_bytes + len(data) > self._most_waiting_bytes:
                self._lost += 1
            else:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
                if self._writer is None:
                    self._writer = threading.Thread(
                        target=self._write_waiting, args=(descriptor,), daemon=True
                    )
                    self._writer.start()

    def _write_waiting(self, descriptor: int) -> None:
        """Write what waits, and wait for the reader; what runs in the thread."""
        while (data := self._next_waiting()) is not None:
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except BrokenPipeError:
                _discard(descriptor)
            except OSError:
                continue
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:
            _logger.warning("Log lines were lost, because nobody read them", extra={"lost": lost})

    def _next_waiting(self) -> bytes | None:
        with self._lock:
            if not self._waiting:
                self._writer = None
                return None
            data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            return data

    def finish(self) -> None:
        """Write what is left, within a second; keep the interpreter from failing over it."""
        writer = self._writer
        if writer is not None:
            writer.join(_FINISH_SECONDS)
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            _discard_output()


def _takes(descriptor: int, count: int) -> bool:
    """Whether so many bytes can be written without waiting."""
    if sys.platform == "win32" or stat.S_ISREG(os.fstat(descriptor).st_mode):
        return True
    if count > _ATOMIC_BYTES:
        return False
    _, writable, _ = select.select([], [descriptor], [], 0)
    return bool(writable)


def _discard_output() -> None:
    with suppress(OSError, ValueError, AttributeError):
        _discard(sys.stdout.fileno())


def _discard(descriptor: int) -> None:
    """Have everything that is written from now on go nowhere."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


output: Final = Output()
"""The standard output of this process."""
