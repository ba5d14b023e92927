"""The service as a process, for tests that start and stop it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from example_service.core.settings import Settings
from example_service.migrations import upgrade

ROOT = Path(__file__).parents[1]
DATABASE = "database.sqlite3"
DEADLINE_SECONDS = 120.0
START_SECONDS = 240.0
"""How long several workers may take to start on a busy machine."""


def wait_until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until a condition is met."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


_SERVING = re.compile(r'(?:"event":"Serving","url":"| is (?:not )?ready\b.*?: )(http[^\s"]+)')
"""What a service prints when it accepts requests, in a log for programs or for people."""


class Service:
    """`example-service serve` in a separate process, on a free port, without any `.env`.

    Unless DATABASE_URL is given, it uses an SQLite file with the current schema.
    """

    def __init__(self, directory: Path, **variables: str) -> None:
        if "DATABASE_URL" not in variables:
            variables["DATABASE_URL"] = f"sqlite:///{directory / DATABASE}"
            database_url = SecretStr(variables["DATABASE_URL"])
            asyncio.run(upgrade(Settings(database_url=database_url)))
        self.output = directory / "stdout"
        self._errors = directory / "stderr"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(directory),
            "PORT": "0",
            **variables,
        }
        with self.output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "example_service", "serve"],
                cwd=directory,
                env=environment,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        """The URL that the service has printed."""
        found: list[re.Match[str]] = []

        def has_ended_or_serves() -> bool:
            found.extend(_SERVING.finditer(self.text))
            return bool(found) or self.process.poll() is not None

        wait_until(has_ended_or_serves, START_SECONDS)
        assert found, self.errors
        return found[0][1]

    @property
    def text(self) -> str:
        """The text that it has written to standard output."""
        return self.output.read_text()

    @property
    def errors(self) -> str:
        """The text that it has written to standard error."""
        return self._errors.read_text()

    def status(self) -> int:
        """Its exit status; wait until it has ended."""
        return self.process.wait(DEADLINE_SECONDS)

    def workers(self) -> list[int]:
        """The process ids of its workers, in no particular order."""
        return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", self.text)]


def kill(service: Service) -> None:
    """Kill the remaining processes of a service, its workers and its sandbox."""
    if service.process.poll() is None:
        os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()


def get(url: str) -> httpx.Response:
    """Request a resource; a busy machine may need longer than httpx waits by default."""
    return httpx.get(url, timeout=DEADLINE_SECONDS)


def is_ready(url: str) -> bool:
    """Whether the service reports on a new connection that it is ready."""
    return get(f"{url}/health/ready").status_code == 200


def refuses_connections(url: str) -> bool:
    """Whether nothing listens on its port."""
    try:
        get(f"{url}/health/live")
    except httpx.TransportError:
        return True
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services; processes that still run after the test are killed."""
    services: list[Service] = []

    def start_service(**variables: str) -> Service:
        services.append(Service(tmp_path, **variables))
        return services[-1]

    yield start_service
    for service in services:
        kill(service)
