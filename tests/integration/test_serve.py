"""The service as processes: how it starts, how it stops, and what it leaves behind."""

import errno
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NoReturn

import pytest

from example_service.core.settings import Settings
from example_service.server.process import listen
from example_service.server.supervisor import MAX_FAILED_STARTS, Supervisor
from tests.service_process import (
    DATABASE,
    DEADLINE_SECONDS,
    START_SECONDS,
    Service,
    get,
    refuses_connections,
    wait_until,
)

pytestmark = pytest.mark.integration

READY = "/health/ready"


def test_a_port_that_is_taken_is_reported_in_one_line(start: Callable[..., Service]) -> None:
    """The line names the port and how to choose another; the exit status is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start(PORT=str(port))

        assert service.status() == 1
        assert service.text == ""
        (line,) = service.errors.splitlines()
        assert f"Port {port} on 127.0.0.1 is taken" in line
        assert "--port" in line


def test_production_refuses_unsafe_settings_with_a_table(start: Callable[..., Service]) -> None:
    """The table has no secrets, the exit status is 2, and nothing is started."""
    service = start(ENVIRONMENT="production", ADMIN__TOKEN="changeme-changeme")

    assert service.status() == 2
    assert service.text == ""
    assert "Traceback" not in service.errors
    assert "changeme" not in service.errors
    rows = [line.split()[0] for line in service.errors.splitlines() if line.startswith("  ")]
    assert rows[:4] == ["VARIABLE", "DATABASE_URL", "HTTP__ALLOWED_HOSTS", "ADMIN__TOKEN"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_parameters_that_contradict_the_code_are_refused_with_the_same_table(
    start: Callable[..., Service], workers: str
) -> None:
    """The value is valid by itself, but not with the rule that the code has for the breaker."""
    name = "CIRCUIT_BREAKERS__DATABASE__FAILURE_RATE__WINDOW_CALLS"
    service = start(WORKERS=workers, **{name: "19"})

    assert service.status() == 2
    assert "Traceback" not in service.errors
    assert f"  {name}  contradicts the code" in service.errors


def test_a_request_that_is_not_http_gets_a_problem(start: Callable[..., Service]) -> None:
    """Even requests that never reach the application get a documented problem."""
    service = start()
    host, port = service.url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        with connection.makefile("rb") as stream:
            answer = stream.read().decode()

    assert answer.startswith("HTTP/1.1 400 ")
    assert "content-type: application/problem+json" in answer
    found = re.search(r'"type": "([^"]+)"', answer)
    assert found is not None
    assert get(service.url + found[1]).status_code == 200


def test_two_workers_start_and_stop_cleanly(start: Callable[..., Service], tmp_path: Path) -> None:
    """They share the port, report the metrics of both, and leave nothing behind."""
    service = start(WORKERS="2")
    url = service.url

    assert len(service.workers()) == 2
    assert get(url + READY).status_code == 200
    assert 'circuit_breaker_state{name="database"} 0.0' in get(f"{url}/metrics").text
    service.process.send_signal(signal.SIGTERM)

    assert service.status() == 0
    assert refuses_connections(url)
    assert service.errors == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [DATABASE, "stderr", "stdout"]


def test_a_worker_that_dies_is_replaced(start: Callable[..., Service]) -> None:
    """The number of workers stays the same."""
    service = start(WORKERS="2")
    url = service.url

    os.kill(service.workers()[0], signal.SIGKILL)

    wait_until(lambda: len(service.workers()) == 3, START_SECONDS)
    assert get(url + READY).status_code == 200
    assert '"exit_status":-9' in service.text
    wait_until(lambda: service.text.count("Application startup complete") == 3, START_SECONDS)
    service.process.send_signal(signal.SIGTERM)
    assert service.status() == 0


def test_workers_do_not_outlive_their_parent(start: Callable[..., Service]) -> None:
    """The port becomes free even if the parent is killed."""
    service = start(WORKERS="2")
    url = service.url

    service.process.kill()
    service.process.wait()

    wait_until(lambda: refuses_connections(url))


def serve(life: Connection) -> NoReturn:
    """Be a worker that serves and sends heartbeats, until a signal ends it."""
    while True:
        life.send_bytes(b"serving")
        time.sleep(0.2)


def serve_on_the_third_attempt(_: socket.socket, life: Connection) -> None:
    """Be a worker that serves, except the third and fourth, which exit before that."""
    attempts = Path(os.environ["ATTEMPTS"])
    before = len(list(attempts.iterdir()))
    (attempts / str(os.getpid())).touch()
    if before in (2, 3):
        sys.exit(1)
    serve(life)


def serve_only_at_first(_: socket.socket, life: Connection) -> None:
    """Be a worker that serves if it is one of the first two, and exits otherwise."""
    attempts = Path(os.environ["ATTEMPTS"])
    before = len(list(attempts.iterdir()))
    (attempts / str(os.getpid())).touch()
    if before > 1:
        sys.exit(1)
    serve(life)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory with a file for each started worker, named after its process ID."""
    folder = tmp_path / "attempts"
    folder.mkdir()
    monkeypatch.setenv("ATTEMPTS", str(folder))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    monkeypatch.setattr("example_service.server.supervisor.RETRY_SECONDS", 0.01)
    return folder


def kill_first_worker(attempts: Path) -> None:
    """Kill one of the serving workers."""
    os.kill(int(next(attempts.iterdir()).name), signal.SIGKILL)


def test_a_replacement_that_cannot_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, attempts: Path, tmp_path: Path
) -> None:
    """The others keep serving.

    The limit of processes may be reached, the current directory may be deleted, and the replacement
    may die of the same cause.
    """
    monkeypatch.setattr("example_service.server.supervisor._serve", serve_on_the_third_attempt)
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    refusals = [BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")] * 2
    start = SpawnProcess.start

    def start_or_refuse(process: SpawnProcess) -> None:
        if len(list(attempts.iterdir())) > 1 and refusals:
            raise refusals.pop()
        start(process)

    def strike() -> None:
        (tmp_path / "release").rmdir()
        kill_first_worker(attempts)
        wait_until(lambda: len(list(attempts.iterdir())) == 5, START_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, listen("127.0.0.1", 0) as listener:
        patch.setattr(SpawnProcess, "start", start_or_refuse)
        striking = threading.Thread(target=strike)
        assert Supervisor(Settings(workers=2), listener, striking.start).run() == 0

    assert refusals == []


def test_replacements_that_never_start_end_the_service(
    monkeypatch: pytest.MonkeyPatch, attempts: Path
) -> None:
    """After five failures in a row an operator has to look; the exit status is 1."""
    monkeypatch.setattr("example_service.server.supervisor._serve", serve_only_at_first)

    with listen("127.0.0.1", 0) as listener:
        striking = threading.Thread(target=kill_first_worker, args=(attempts,))
        assert Supervisor(Settings(workers=2), listener, striking.start).run() == 1

    assert len(list(attempts.iterdir())) == 2 + MAX_FAILED_STARTS


def test_workers_that_cannot_start_end_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """There is no second attempt at startup; the exit status is 1."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    # A worker that exits before it serves.
    monkeypatch.setattr("example_service.server.supervisor._serve", print)

    with listen("127.0.0.1", 0) as listener:
        supervisor = Supervisor(Settings(workers=2), listener, pytest.fail)
        assert supervisor.run() == 1
