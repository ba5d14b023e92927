"""Non-blocking writes to standard output."""

import logging
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TextIO

MAX_WAITING_BYTES: Final = 1_048_576
"""The most bytes that wait for a slow reader. Text beyond that is dropped and counted."""

_FINISH_SECONDS: Final = 1.0
# A write of up to this many bytes to a writable pipe does not block.
_ATOMIC_BYTES: Final = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512

_STANDARD_ERROR: Final = 2

_logger = logging.getLogger("example_service.log")


class Output:
    """Writes to standard output directly, or in a thread if the write would block.

    Writing to a pipe that is full because nothing reads it would block the event loop.

    Args:
        max_waiting_bytes: The most bytes that may wait for the thread. Text beyond that is
            dropped, and the number of dropped texts is logged later.
    """

    def __init__(self, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_waiting_bytes = max_waiting_bytes
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._writer: threading.Thread | None = None
        self._stream: TextIO | None = None
        self._target: _Target | None = None

    def write(self, text: str) -> None:
        """Write a text. Never blocks and never raises."""
        # The stream is looked up each time, because tests and supervisors replace it.
        try:
            stream = sys.stdout
            if stream is not self._stream:
                self._stream, self._target = stream, _Target.of(stream)
            target = self._target
            if target is None:
                stream.write(text)
                return
            data = text.encode("utf-8", "backslashreplace")
            with self._lock:
                if self._writer is None and target.takes(len(data)):
                    os.write(target.descriptor, data)
                else:
                    self._write_later(target.descriptor, data)
        except BrokenPipeError:
            # The reader has exited, as with `| head`, and will not come back.
            _discard_output()
        except (OSError, ValueError, AttributeError):
            # A full disk or a closed or missing stream must not make a request fail.
            return

    def _write_later(self, descriptor: int, data: bytes) -> None:
        """Let the thread write a text, unless too many bytes wait for it."""
        if self._waiting_bytes + len(data) > self._max_waiting_bytes:
            self._lost += 1
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._writer is None:
            self._writer = threading.Thread(
                target=self._write_waiting, args=(descriptor,), daemon=True
            )
            self._writer.start()

    def _write_waiting(self, descriptor: int) -> None:
        """Write the waiting texts with blocking writes. Runs in the thread."""
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
            _logger.warning(
                "Log lines were lost because the reader was too slow", extra={"lost": lost}
            )

    def _next_waiting(self) -> bytes | None:
        with self._lock:
            if not self._waiting:
                self._writer = None
                return None
            data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            return data

    def finish(self) -> None:
        """Write the waiting texts, within a second. Errors at interpreter exit are prevented."""
        writer = self._writer
        if writer is not None:
            writer.join(_FINISH_SECONDS)
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            _discard_output()


@dataclass(frozen=True, slots=True)
class _Target:
    """The file that a stream writes to.

    Attributes:
        descriptor: The file descriptor.
        poll: Checks whether the file is writable now; None for a file that never blocks.
    """

    descriptor: int
    poll: Callable[[int], object] | None

    @classmethod
    def of(cls, stream: TextIO) -> "_Target | None":
        """The target of a stream; None for a stream in memory."""
        try:
            descriptor = stream.fileno()
        except OSError:
            return None
        mode = os.fstat(descriptor).st_mode
        may_wait = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
        if not may_wait or sys.platform == "win32":
            return cls(descriptor, None)
        asking = select.poll()
        asking.register(descriptor, select.POLLOUT)
        return cls(descriptor, asking.poll)

    def takes(self, count: int) -> bool:
        """Whether `count` bytes can be written without blocking."""
        return self.poll is None or (count <= _ATOMIC_BYTES and bool(self.poll(0)))


def open_missing_streams() -> None:
    """Open the null device for the standard streams that are closed, as after `serve >&-`.

    Otherwise the next file or socket would get the number of such a stream, and what a library
    writes to standard error would end up in it. Call this when the process starts.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - until the exit


def _discard_output() -> None:
    with suppress(OSError, ValueError, AttributeError):
        _discard(sys.stdout.fileno())


def _discard(descriptor: int) -> None:
    """Redirect a file descriptor to /dev/null."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


output: Final = Output()
"""The standard output of this process."""
