"""One worker among several: it copies its metrics to the shared files, and adds all up."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from example_service.core.background import KeepGoing
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.metrics.shared.files import SharedFiles

logger = logging.getLogger(__name__)

COPY_INTERVAL_SECONDS: Final = 1.0


class Worker:
    """This process, as one of several that share their metrics.

    Args:
        directory: Where all workers have their files.
        metrics: The metrics of this worker.
        copy_interval_seconds: How often the metrics are copied between scrapes.
    """

    def __init__(
        self,
        directory: Path,
        metrics: SharedMetrics,
        *,
        copy_interval_seconds: float = COPY_INTERVAL_SECONDS,
    ) -> None:
        self._directory = directory
        self._metrics = metrics
        self._copy_interval_seconds = copy_interval_seconds
        self._lock = threading.Lock()

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Share the metrics until the end of the block, which then sets every gauge to 0."""
        self._copy()
        copying = asyncio.create_task(self._copy_regularly())
        try:
            yield
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
            self._end()

    def gather(self) -> CollectorRegistry:
        """Copy the metrics of this worker, and add up those of all; others are up to a second old.

        With many metrics this takes a while: call it in a thread.

        Returns:
            A registry with the sums over all workers.
        """
        self._copy()
        registry = CollectorRegistry()
        registry.register(SharedFiles(self._directory))
        return registry

    async def _copy_regularly(self) -> None:
        keep_going = KeepGoing(logger, "The metrics of this worker could not be copied")
        while True:
            await asyncio.sleep(self._copy_interval_seconds)
            with keep_going:
                await asyncio.to_thread(self._copy)

    def _copy(self) -> None:
        with self._lock:
            self._metrics.try_copy()

    def _end(self) -> None:
        with self._lock:
            self._metrics.try_copy()
            self._metrics.clear_gauges()
