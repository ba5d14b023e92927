"""Standard output that goes away, is full or was never there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.ports import lasting_port
from tests.service_process import DEADLINE_SECONDS, ROOT, wait_until

pytestmark = pytest.mark.integration


@contextmanager
def serving(
    directory: Path, port: int, stdout: IO[bytes] | int, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A service that writes its lines to that file."""
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
    """Whether the service on that port is alive."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reader_that_has_gone_ends_nothing(workers: str, tmp_path: Path) -> None:
    """As with `serve | head -1`: requests are answered, and the exit status is 0."""
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


def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    """Lines are lost, and nothing else."""
    port = lasting_port()
    with Path("/dev/full").open("wb") as full, serving(tmp_path, port, full) as service:
        wait_until(lambda: answers(port))
        service.terminate()
        _, errors = service.communicate(timeout=DEADLINE_SECONDS)

    assert service.returncode == 0
    assert errors == b""


def test_no_standard_output_ends_nothing(tmp_path: Path) -> None:
    """As with `serve >&-`."""
    port = lasting_port()
    with serving(tmp_path, port, subprocess.DEVNULL, preexec_fn=lambda: os.close(1)) as service:
        wait_until(lambda: answers(port))
        service.terminate()
        _, errors = service.communicate(timeout=DEADLINE_SECONDS)

    assert service.returncode == 0
    assert errors == b""
