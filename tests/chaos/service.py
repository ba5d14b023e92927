"""The service as its process manager sees it: started, killed, restarted on the same port."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tests.chaos.logs import is_announced, serving_workers
from tests.ports import lasting_port

ROOT = Path(__file__).parents[2]
_DEADLINE_SECONDS = 60.0
_POLL_SECONDS = 0.05


class Service:
    """A service that is started repeatedly, each time with its own logs and clock.

    Args:
        folder: The folder for logs: `service-NAME-001.log` and so on; `.err` is standard error.
        temporary: The folder for sockets that killed processes leave; their paths must be short.
        settings: The environment variables without the port.
        workers: The number of workers.
        name: Distinguishes the replica from others.
        clocks: Further variables for each start, which shift its clock.

    Attributes:
        url: The URL of the service.
        ended_by_itself: How often it had ended without having been stopped.
    """

    def __init__(
        self,
        folder: Path,
        temporary: str,
        settings: Mapping[str, str],
        workers: int,
        *,
        name: str,
        clocks: Iterator[Mapping[str, str]],
    ) -> None:
        port = lasting_port()
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._folder = folder
        self._name = name
        self._clocks = clocks
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TMPDIR": temporary,
            "PORT": str(port),
            "WORKERS": str(workers),
            **settings,
        }
        self.ended_by_itself = 0
        self._starts = 0
        self._in_hand = asyncio.Lock()
        self._killed: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def migrate(self) -> None:
        """Migrate the database."""
        subprocess.run(
            [sys.executable, "-m", "example_service", "migrate"],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            check=True,
        )

    async def start(self) -> None:
        """Start the service, and wait until all its processes serve."""
        async with self._in_hand:
            await self._start()

    async def look_after(self) -> None:
        """Start the service again whenever it ends by itself, until cancelled."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            async with self._in_hand:
                if self._has_ended:
                    self.ended_by_itself += 1
                    self.end()
                    await self._start()

    async def wait_until_it_serves(self) -> None:
        """Wait until at least one of its processes serves."""
        await _until(lambda: bool(self._living()))

    async def kill_worker(self, chance: random.Random) -> None:
        """Kill a serving worker with SIGKILL; the supervisor replaces it."""
        async with self._in_hand:
            # The worker may have ended by itself.
            if living := self._living():
                worker = chance.choice(living)
                self._killed.add(worker)
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

    async def kill(self) -> None:
        """Kill all its processes with SIGKILL, and start the service again."""
        async with self._in_hand:
            self.end()
            await self._start()

    async def suspend(self, seconds: float) -> None:
        """Suspend all its processes for a while, like the migration of a virtual machine does."""
        async with self._in_hand:
            if self._process is None or self._has_ended:
                return
            os.killpg(self._process.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.killpg(self._process.pid, signal.SIGCONT)

    async def restart(self) -> int:
        """Restart the service as a deployment does, and return the exit status."""
        async with self._in_hand:
            status = await self._stop()
            await self._start()
            return status

    async def stop(self) -> int:
        """Stop the service with SIGTERM, and return its exit status."""
        async with self._in_hand:
            return await self._stop()

    def end(self) -> None:
        """Kill all processes that are left."""
        if self._process is not None:
            # The service may have ended by itself without leaving a process.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def _start(self) -> None:
        await _until(self._port_is_free)
        self._starts += 1
        self._killed.clear()
        self._process = self._launch()
        await _until(lambda: self._has_ended or is_announced(self._log))

    def _launch(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as output, self._log.with_suffix(".err").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "example_service", "serve"],
                cwd=self._folder,
                env={**self._environment, **next(self._clocks)},
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    async def _stop(self) -> int:
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(process.wait, _DEADLINE_SECONDS)
        self._process = None
        return status

    @property
    def _has_ended(self) -> bool:
        """Whether the service was started and has since ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def _living(self) -> list[int]:
        """The serving workers that were not killed."""
        return [pid for pid in serving_workers(self._log) if pid not in self._killed]

    @property
    def _log(self) -> Path:
        return self._folder / f"service-{self._name}-{self._starts:03}.log"

    def _port_is_free(self) -> bool:
        """Whether the processes that served there are gone."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", self._port))
            except OSError:
                return False
            return True


async def _until(is_met: Callable[[], bool]) -> None:
    end = time.monotonic() + _DEADLINE_SECONDS
    while not is_met():
        assert time.monotonic() < end, "the condition was not met in time"
        await asyncio.sleep(_POLL_SECONDS)
