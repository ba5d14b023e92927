"""One worker among several: it copies its figures, has the others copy theirs, and adds up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from example_service.infra.metrics.shared.figures import SharedFigures
from example_service.infra.metrics.shared.files import SharedFiles
from example_service.infra.workers.peers import Peers

COPY_INTERVAL_SECONDS: Final = 1.0

_QUESTION: Final = "figures"


class Worker:
    """This process, as one of several that share their metrics.

    Args:
        directory: Where all workers have their files.
        figures: What this one shows.
        peers: Where the others are asked to copy, and ask this one.
        copy_interval_seconds: How old its figures get when nobody asks.
    """

    def __init__(
        self,
        directory: Path,
        figures: SharedFigures,
        peers: Peers,
        *,
        copy_interval_seconds: float = COPY_INTERVAL_SECONDS,
    ) -> None:
        self._directory = directory
        self._figures = figures
        self._peers = peers
        self._copy_interval_seconds = copy_interval_seconds

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Share the figures until the end of the block, which leaves no gauge behind."""
        self._figures.try_copy()
        self._peers.answer(_QUESTION, self._copy_for_another)
        copying = asyncio.create_task(self._copy_regularly())
        try:
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
        await self._peers.ask(_QUESTION)
        registry = CollectorRegistry()
        registry.register(SharedFiles(self._directory))
        return registry

    async def _copy_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._copy_interval_seconds)
            self._figures.try_copy()

    async def _copy_for_another(self, _: bytes) -> bytes:
        self._figures.try_copy()
        return b""
