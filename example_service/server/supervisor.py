"""The supervisor of several worker processes that share one socket.

uvicorn's own supervisor only runs uvicorn's own server, waits without a limit for workers that do
not end, and leaves the socket open. This one starts the workers, replaces those that die or hang,
drains all of them on the first signal, and kills them on the second. If a signal is sent to the
whole process group, each worker drains only once.
"""

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Final, cast

from example_service.core.exceptions import SettingsError
from example_service.core.logging import configure_logging
from example_service.core.output import output
from example_service.core.settings import Settings, load_settings
from example_service.core.settings.model import ShutdownSettings
from example_service.infra.metrics.shared.multiprocess import (
    mark_worker_dead,
    prepare_multiprocess_directory,
)
from example_service.server.process import (
    ALIVE_SECONDS,
    CLEAN_UP_SECONDS,
    STOP_SIGNALS,
    DrainingServer,
    is_echo,
    server_config,
)

logger = logging.getLogger(__name__)

STARTING: Final = b"starting"
"""The heartbeat of a worker that is still starting. Any other heartbeat means that it serves."""

RETRY_SECONDS: Final = 1.0
MAX_FAILED_STARTS: Final = 5

UNRESPONSIVE_SECONDS: Final = 10.0
"""A worker is killed after this time without a heartbeat: its event loop is blocked, or the process
is stopped."""
UNRESPONSIVE_AT_END_SECONDS: Final = 5.0
"""The same limit while the service is shutting down."""
FIRST_HEARTBEAT_SECONDS: Final = 60.0
"""How long a new process may take until its first heartbeat, which it sends before it loads the
application."""

_CHECK_SECONDS: Final = 1.0

_TERMINAL_SIGNALS: Final = frozenset({signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)})

# Spawn workers, because a forked process would share locks, clients and metrics with its parent.
_spawn = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class _Worker:
    """A worker process, and the pipe on which it sends heartbeats."""

    process: SpawnProcess
    pipe: Connection
    last_heartbeat_at: float
    has_begun: bool = False
    is_serving: bool = False

    def read_heartbeat(self, now: float) -> None:
        """Read one heartbeat from the pipe."""
        try:
            sign = self.pipe.recv_bytes()
        except EOFError:
            # The event loop has ended, so the process will end soon.
            self.pipe.close()
            self.last_heartbeat_at = math.inf
        else:
            self.last_heartbeat_at = now
            self.has_begun = True
            self.is_serving |= sign != STARTING

    def is_unresponsive(self, now: float, *, stopping_since: float | None) -> bool:
        """Whether the last heartbeat is too long ago.

        Args:
            now: The current time.
            stopping_since: When the shutdown began; None if it has not. A worker then has
                `UNRESPONSIVE_AT_END_SECONDS` to react, even if its last heartbeat was a while ago.
        """
        if stopping_since is not None:
            since = max(self.last_heartbeat_at, stopping_since)
            return now > since + UNRESPONSIVE_AT_END_SECONDS
        return now > self.last_heartbeat_at + (
            UNRESPONSIVE_SECONDS if self.has_begun else FIRST_HEARTBEAT_SECONDS
        )

    def kill(self) -> None:
        """Kill the process, even if it is stopped."""
        self.last_heartbeat_at = math.inf
        self.process.kill()


class Supervisor:
    """Keeps a number of workers running until a signal arrives.

    Args:
        settings: The settings with the number of workers and the shutdown times. The workers read
            their own settings from the environment.
        listener: The socket that the workers share. It is closed when they start to drain.
        on_started: Called once, when all workers accept requests.
    """

    def __init__(
        self, settings: Settings, listener: socket.socket, on_started: Callable[[], None]
    ) -> None:
        self._count = settings.workers
        self._stop_seconds = _stop_seconds(settings.shutdown)
        self._listener = listener
        self._on_started = on_started
        # The keys are the sentinels of the processes, which become readable when they end.
        self._workers: dict[int, _Worker] = {}
        # The process ids of ended workers whose metrics are not archived yet.
        self._ended: set[int] = set()
        self._first_signal = (0, 0.0)
        self._stopping_since: float | None = None
        self._deadline: float | None = None
        self._retry_at: float | None = None
        self._failed_starts = 0
        self._announced = False
        self._failed = False

    def run(self) -> int:
        """Serve until a signal arrives or workers fail to start.

        A worker that dies is replaced immediately, and one that hangs is killed first. If a
        replacement fails to start, the next attempt follows after a second, while the other workers
        keep serving. After five failed starts in a row, or if one of the first workers fails to
        start, all workers are stopped.

        Returns:
            The exit status: 0 after a graceful shutdown, 1 if workers failed to start or were
            killed.
        """
        prepare_multiprocess_directory()
        with _signals() as signalled:
            self._start_missing()
            while self._workers or self._retry_at is not None:
                self._next_event(signalled)
        return int(self._failed)

    def _next_event(self, signalled: Connection) -> None:
        """Wait for and handle a signal, a heartbeat, the end of a worker, or a timeout."""
        began = time.monotonic()
        living = {w.pipe: w for w in self._workers.values() if not w.pipe.closed}
        events = wait([signalled, *living, *self._workers], self._seconds_to_wait(began))
        now = time.monotonic()
        if now > began + 2 * _CHECK_SECONDS:
            # This process was itself stopped, and probably the workers were too: give them time.
            for worker in living.values():
                worker.last_heartbeat_at = now
        if signalled in events:
            self._note_signal(signalled.recv(), now)
        for worker in [living[event] for event in events if event in living]:
            was_serving = worker.is_serving
            worker.read_heartbeat(now)
            if worker.is_serving and not was_serving:
                self._note_start()
        for worker in [self._workers[event] for event in events if event in self._workers]:
            self._note_end(worker)
        self._check_workers(now)

    def _check_workers(self, now: float) -> None:
        """Start missing workers, and kill those that hang or have exceeded the shutdown time."""
        if self._retry_at is not None and now >= self._retry_at:
            self._start_missing()
        if self._deadline is not None and now >= self._deadline:
            self._kill()
        for worker in self._workers.values():
            if worker.is_unresponsive(now, stopping_since=self._stopping_since):
                logger.error("A worker does not respond and is killed", extra=_about(worker))
                worker.kill()

    def _start(self) -> None:
        _leave_deleted_directory()
        with contextlib.ExitStack() as opened:
            try:
                receiving, sending = _spawn.Pipe(duplex=False)
                opened.callback(sending.close)
                opened.callback(receiving.close)
                process = _spawn.Process(target=_serve, args=(self._listener, sending))
                with _ignoring_terminal():
                    process.start()
            except OSError as error:
                # The limit of processes, of files or of memory is reached.
                self._note_failed_start({"reason": error.strerror})
                return
            opened.pop_all()
        sending.close()
        self._workers[process.sentinel] = _Worker(process, receiving, time.monotonic())

    def _start_missing(self) -> None:
        """Start workers until there are enough, one fails to start, or the service stops."""
        self._retry_at = None
        while self._retry_at is self._deadline is None and len(self._workers) < self._count:
            self._start()

    def _note_signal(self, number: int, now: float) -> None:
        if self._deadline is None:
            self._first_signal = (number, now)
            self._stop()
        elif not is_echo(self._first_signal, (number, now)):
            self._kill()

    def _note_start(self) -> None:
        self._failed_starts = 0
        serving = sum(worker.is_serving for worker in self._workers.values())
        if serving == self._count and not self._announced:
            self._announced = True
            self._on_started()

    def _note_end(self, worker: _Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        del self._workers[worker.process.sentinel]
        pid, status = worker.process.pid, worker.process.exitcode
        self._archive_metrics(cast("int", pid))
        if self._deadline is not None:
            self._failed |= status not in (0, -signal.SIGTERM)
        elif worker.is_serving:
            logger.error("A worker died and is replaced", extra=_about(worker))
            self._start()
        else:
            self._note_failed_start(_about(worker))

    def _archive_metrics(self, pid: int) -> None:
        """Archive the metrics of ended workers. Those that are still locked are retried later."""
        self._ended.add(pid)
        self._ended = {each for each in self._ended if not mark_worker_dead(each)}

    def _note_failed_start(self, details: dict[str, object]) -> None:
        self._failed_starts += 1
        if self._announced and self._failed_starts < MAX_FAILED_STARTS:
            logger.error("A worker could not start; trying another", extra=details)
            self._retry_at = time.monotonic() + RETRY_SECONDS
        else:
            logger.error("A worker could not start", extra=details)
            self._failed = True
            self._stop()

    def _stop(self) -> None:
        """Drain all workers. The port is free once the last of them has closed the socket."""
        self._stopping_since = time.monotonic()
        self._deadline = self._stopping_since + self._stop_seconds
        self._retry_at = None
        self._listener.close()
        for worker in self._workers.values():
            worker.process.terminate()

    def _kill(self) -> None:
        self._deadline = math.inf
        self._failed = True
        for worker in self._workers.values():
            worker.kill()

    def _seconds_to_wait(self, now: float) -> float:
        until = self._retry_at if self._deadline is None else self._deadline
        if until is None:
            return _CHECK_SECONDS
        return min(_CHECK_SECONDS, max(0.0, until - now))


def _about(worker: _Worker) -> dict[str, object]:
    return {"worker_pid": worker.process.pid, "exit_status": worker.process.exitcode}


@contextmanager
def _signals() -> Iterator[Connection]:
    """Turn SIGINT and SIGTERM into messages on the returned connection."""
    receiving, sending = _spawn.Pipe(duplex=False)

    def pass_on(number: int, _: FrameType | None) -> None:
        sending.send(number)

    former = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield receiving
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _ignoring_terminal() -> Iterator[None]:
    """Make processes started in this block ignore the signals that a terminal sends to all of them.

    The supervisor drains them when it gets such a signal itself.
    """
    former = {number: signal.signal(number, signal.SIG_IGN) for number in _TERMINAL_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _leave_deleted_directory() -> None:
    """Change to `/` if the current directory was deleted: no process can be started in it."""
    try:
        os.getcwd()  # noqa: PTH109 - nothing else is needed
    except FileNotFoundError:
        logger.warning("The current directory was deleted; the service continues in /")
        os.chdir("/")


def _serve(listener: socket.socket, pipe: Connection) -> None:
    """Run a worker. This is the main function of the new process."""
    # Never block on a supervisor that does not read heartbeats.
    os.set_blocking(pipe.fileno(), False)
    is_alive = threading.Event()
    threading.Thread(target=_report_start, args=(pipe, is_alive), daemon=True).start()
    try:
        settings = load_settings()
    except SettingsError as error:
        # The settings were valid when the service started, but `.env` may have changed since then.
        sys.exit(str(error))
    configure_logging(settings)
    stop_seconds = _stop_seconds(settings.shutdown)
    threading.Thread(target=_end_with_parent, args=(stop_seconds,), daemon=True).start()

    def send_heartbeats() -> None:
        is_alive.set()
        with contextlib.suppress(OSError):
            pipe.send_bytes(b".")

    server = DrainingServer(
        server_config(settings),
        shutdown=settings.shutdown,
        on_started=lambda: None,
        on_alive=send_heartbeats,
        stop_signals=frozenset({signal.SIGTERM}),
        # A worker may get one signal from the process group and one from the supervisor, which
        # kills it if it does not stop in time.
        second_signal_ends=False,
    )
    with pipe:
        try:
            server.run([listener])
        except SettingsError as error:
            # The settings of a breaker that a route requests may be invalid.
            sys.exit(str(error))
    output.finish()


def _report_start(pipe: Connection, is_alive: threading.Event) -> None:
    """Send heartbeats until the event loop sends them."""
    with contextlib.suppress(OSError):
        pipe.send_bytes(STARTING)
    while not is_alive.wait(ALIVE_SECONDS):
        with contextlib.suppress(OSError):
            pipe.send_bytes(STARTING)


def _end_with_parent(stop_seconds: float) -> None:
    """Drain when the parent process has died, so that the port becomes free.

    A worker that has not ended after `stop_seconds`, because its event loop is blocked, would keep
    the port for ever: no supervisor is left to kill it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(stop_seconds)
        os._exit(1)


def _stop_seconds(shutdown: ShutdownSettings) -> float:
    """How long a worker may take to stop, in seconds."""
    return shutdown.drain_seconds + shutdown.grace_seconds + 3 * CLEAN_UP_SECONDS
