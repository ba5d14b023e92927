"""Standard output that goes away, fills up or never existed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.ports import lasting_port
from tests.service_process import DEADLINE_SECONDS, ROOT, get, wait_until

pytestmark = pytest.mark.integration


@contextmanager
def serving(
    directory: Path, port: int, stdout: IO[bytes] | int, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A service that writes its log to this file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "example_service", "serve"],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PORT": str(port),
            "WORKERS": options.pop("workers", "1"),
        },
        stdout=stdout,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def answers(port: int) -> bool:
    """Return whether the service on that port is live."""
    try:
        return get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_survives_a_reader_that_has_gone(workers: str, tmp_path: Path) -> None:
    """With `serve | head -1`, requests are still answered and the exit status is 0."""
    port = lasting_port()
    reading, writing = os.pipe()
    with serving(tmp_path, port, writing, workers=workers) as service:
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        wait_until(lambda: answers(port))
        assert all(answers(port) for _ in range(20))
        service.terminate()
        _, errors = service.communicate(timeout=DEADLINE_SECONDS)

    assert service.returncode == 0
    assert errors == b""


def test_the_service_survives_a_full_disk(tmp_path: Path) -> None:
    """Log lines are lost, and nothing else."""
    port = lasting_port()
    with Path("/dev/full").open("wb") as full, serving(tmp_path, port, full) as service:
        wait_until(lambda: answers(port))
        service.terminate()
        _, errors = service.communicate(timeout=DEADLINE_SECONDS)

    assert service.returncode == 0
    assert errors == b""


@pytest.mark.parametrize("closed", [[1], [0, 1, 2]])
def test_the_service_survives_without_standard_streams(closed: list[int], tmp_path: Path) -> None:
    """`serve >&-` closes standard output before the start, and `<&- >&- 2>&-` all streams.

    No file or socket of the service takes their place.
    """
    port = lasting_port()

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    with serving(tmp_path, port, subprocess.DEVNULL, preexec_fn=close) as service:
        wait_until(lambda: answers(port))
        open_files = Path(f"/proc/{service.pid}/fd")
        places = {str(open_files.joinpath(str(number)).readlink()) for number in closed}
        service.terminate()
        _, errors = service.communicate(timeout=DEADLINE_SECONDS)

    assert service.returncode == 0
    assert errors == b""
    assert places == {os.devnull}


def test_a_log_without_a_reader_loses_only_lines(tmp_path: Path) -> None:
    """The event loop never waits for the reader, which later sees how many are missing."""
    port, count = lasting_port(), 4000
    request = f"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-ID: {'r' * 128}\r\n\r\n".encode()
    reading, writing = os.pipe()
    said = bytearray()

    def read_on() -> bool:
        with suppress(BlockingIOError):
            said.extend(os.read(reading, 1_048_576))
        return b"Log lines were lost" in said

    with serving(tmp_path, port, writing) as service:
        os.close(writing)
        os.set_blocking(reading, False)
        wait_until(lambda: answers(port))
        with socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS) as connection:
            sending = threading.Thread(target=connection.sendall, args=(request * count,))
            sending.start()
            received = b""
            while received.count(b"HTTP/1.1 200") < count:
                piece = connection.recv(1_048_576)
                assert piece
                received += piece
            sending.join()
        assert answers(port)
        assert not service.poll()

        wait_until(read_on)
        service.terminate()
        wait_until(lambda: read_on() and service.poll() is not None)
    os.close(reading)
    [report] = [json.loads(line) for line in said.splitlines() if b"Log lines were lost" in line]
    assert report["lost"] > 0
    assert service.returncode == 0
