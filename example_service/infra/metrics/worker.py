"""One worker among several: it copies its figures, has the others copy theirs, and adds up."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from example_service.infra.metrics.shared_figures import SharedFigures
from example_service.infra.metrics.shared_files import SharedFiles

logger = logging.getLogger(__name__)

COPY_INTERVAL_SECONDS: Final = 1.0
ANSWER_TIMEOUT_SECONDS: Final = 1.0

SOCKETS: Final = "worker_*.sock"


def socket_path(directory: Path, pid: int) -> Path:
    """Where the worker of that process id is asked to copy."""
    return directory / f"worker_{pid}.sock"


class Worker:
    """This process, as one of several that share their metrics.

    Args:
        directory: Where all workers have their files.
        figures: What this one shows.
        pid: Its process id; that of this process if left out.
        copy_interval_seconds: How old its figures get when nobody asks.
        answer_timeout_seconds: How long another worker may take to copy when asked.
    """

    def __init__(
        self,
        directory: Path,
        figures: SharedFigures,
        *,
        pid: int | None = None,
        copy_interval_seconds: float = COPY_INTERVAL_SECONDS,
        answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
    ) -> None:
        self._directory = directory
        self._figures = figures
        self._socket = socket_path(directory, os.getpid() if pid is None else pid)
        self._copy_interval_seconds = copy_interval_seconds
        self._answer_timeout_seconds = answer_timeout_seconds

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Share the figures until the end of the block, which leaves no gauge behind."""
        self._figures.try_copy()
        copying = asyncio.create_task(self._copy_regularly())
        try:
            async with self._copying_when_asked():
                yield
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
            self._figures.try_copy()
            self._figures.clear_gauges()

    async def gather(self) -> CollectorRegistry:
        """Have this worker and, as far as they answer in time, all others copy their figures.

        One that is too busy to answer counts with what it copied last.

        Returns:
            A registry that shows the sums over all workers.
        """
        self._figures.try_copy()
        await asyncio.gather(*map(self._ask_to_copy, self._other_sockets()))
        registry = CollectorRegistry()
        registry.register(SharedFiles(self._directory))
        return registry

    async def _copy_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._copy_interval_seconds)
            self._figures.try_copy()

    @contextlib.asynccontextmanager
    async def _copying_when_asked(self) -> AsyncIterator[None]:
        """Copy whenever somebody connects, and close the connection when that is done."""
        if not hasattr(socket, "AF_UNIX"):
            yield
            return
        try:
            server = await asyncio.start_unix_server(self._copy_for, self._socket)
        except OSError:
            # A path of more than about a hundred characters, for one.
            logger.warning(
                "No socket could be made at %s: other workers see figures up to %g s old.",
                self._socket,
                self._copy_interval_seconds,
                exc_info=True,
            )
            yield
            return
        try:
            yield
        finally:
            server.close()
            self._socket.unlink(missing_ok=True)

    async def _copy_for(self, _: asyncio.StreamReader, asking: asyncio.StreamWriter) -> None:
        self._figures.try_copy()
        asking.close()

    async def _ask_to_copy(self, path: Path) -> None:
        # A worker that is gone refuses. TimeoutError is an OSError, too.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(self._answer_timeout_seconds):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    await reader.read()
                finally:
                    writer.close()

    def _other_sockets(self) -> list[Path]:
        return [path for path in self._directory.glob(SOCKETS) if path != self._socket]
