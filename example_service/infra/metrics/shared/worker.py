"""One worker among several: it copies its metrics, asks the others to, and adds them up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.metrics.shared.files import SharedFiles
from example_service.infra.workers.peers import Peers

COPY_INTERVAL_SECONDS: Final = 1.0

_QUESTION: Final = "metrics"


class Worker:
    """This process, as one of several that share their metrics.

    Args:
        directory: Where all workers have their files.
        metrics: The metrics of this worker.
        peers: The other workers.
        copy_interval_seconds: How often the metrics are copied between scrapes.
    """

    def __init__(
        self,
        directory: Path,
        metrics: SharedMetrics,
        peers: Peers,
        *,
        copy_interval_seconds: float = COPY_INTERVAL_SECONDS,
    ) -> None:
        self._directory = directory
        self._metrics = metrics
        self._peers = peers
        self._copy_interval_seconds = copy_interval_seconds

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Share the metrics until the end of the block, which then sets every gauge to 0."""
        self._metrics.try_copy()
        self._peers.answer(_QUESTION, self._copy_for_another)
        copying = asyncio.create_task(self._copy_regularly())
        try:
            yield
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
            self._metrics.try_copy()
            self._metrics.clear_gauges()

    async def gather(self) -> CollectorRegistry:
        """Ask all workers to copy their metrics, and add them up.

        A worker that is too busy to answer in time contributes its last copy.

        Returns:
            A registry with the sums over all workers.
        """
        self._metrics.try_copy()
        await self._peers.ask(_QUESTION)
        registry = CollectorRegistry()
        registry.register(SharedFiles(self._directory))
        return registry

    async def _copy_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._copy_interval_seconds)
            self._metrics.try_copy()

    async def _copy_for_another(self, _: bytes) -> bytes:
        self._metrics.try_copy()
        return b""
