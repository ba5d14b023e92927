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
_LOOK_SECONDS = 0.05


class Service:
    """`example-service serve`, again and again, each time with logs and a clock of its own.

    Args:
        folder: Where the logs go, `service-NAME-001.log` and on, with `.err` for standard error.
        temporary: Where killed processes leave their sockets, whose paths have to be short.
        settings: Its variables, but for the port.
        workers: How many processes serve.
        name: Tells it from other replicas.
        clocks: Further variables for each start, which skew its clock.

    Attributes:
        url: Where it serves, whenever it does.
        ended_by_itself: How often it had to be started again without having been stopped.
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
        """Bring the database's schema up to date."""
        subprocess.run(
            [sys.executable, "-m", "example_service", "migrate"],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            check=True,
        )

    async def start(self) -> None:
        """Start it, and wait until all its processes serve."""
        async with self._in_hand:
            await self._start()

    async def look_after(self) -> None:
        """Start it again whenever it has ended by itself, until this is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            async with self._in_hand:
                if self._has_ended:
                    self.ended_by_itself += 1
                    self.end()
                    await self._start()

    async def wait_until_it_serves(self) -> None:
        """Wait until at least one of its processes serves."""
        await _until(lambda: bool(self._living()))

    async def kill_worker(self, chance: random.Random) -> None:
        """Kill one of the processes that serve, without a word; the supervisor replaces it."""
        async with self._in_hand:
            # It may be ending by itself.
            if living := self._living():
                worker = chance.choice(living)
                self._killed.add(worker)
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

    async def kill(self) -> None:
        """Kill all its processes without a word, and start it again."""
        async with self._in_hand:
            self.end()
            await self._start()

    async def suspend(self, seconds: float) -> None:
        """Stop all its processes, as a virtual machine that is moved does, and let them go on."""
        async with self._in_hand:
            if self._process is None or self._has_ended:
                return
            os.killpg(self._process.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.killpg(self._process.pid, signal.SIGCONT)

    async def restart(self) -> int:
        """Replace it in an orderly way, as a deployment does; the exit status of the old one."""
        async with self._in_hand:
            status = await self._stop()
            await self._start()
            return status

    async def stop(self) -> int:
        """Ask it to end, and wait for its exit status."""
        async with self._in_hand:
            return await self._stop()

    def end(self) -> None:
        """Kill whatever is left of it."""
        if self._process is not None:
            # It may have ended by itself, and nothing be left of it.
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
        """Whether it was started, and has ended by itself since."""
        return self._process is not None and self._process.poll() is not None

    def _living(self) -> list[int]:
        """The processes that serve and were not killed."""
        return [pid for pid in serving_workers(self._log) if pid not in self._killed]

    @property
    def _log(self) -> Path:
        return self._folder / f"service-{self._name}-{self._starts:03}.log"

    def _port_is_free(self) -> bool:
        """Whether nothing is left of the processes that served there."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", self._port))
            except OSError:
                return False
            return True


async def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(_LOOK_SECONDS)
