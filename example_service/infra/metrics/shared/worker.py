"""A worker that copies its metrics to the shared files and sums those of all workers."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from example_service.core.background import KeepGoing
from example_service.infra.metrics.shared.allocated import catch_up
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.metrics.shared.files import SharedFiles

logger = logging.getLogger(__name__)

COPY_INTERVAL_SECONDS: Final = 1.0


class Worker:
    """One of several worker processes that share their metrics.

    Args:
        directory: The directory of the files of all workers.
        metrics: The metrics of this worker.
        copy_interval_seconds: The seconds between two copies, if no scrape causes one.
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
        self._is_stored = True

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Share the metrics until the end of the block, which sets all gauges to 0."""
        self._copy()
        copying = asyncio.create_task(self._copy_regularly())
        try:
            yield
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
            self._end()

    def gather(self) -> CollectorRegistry:
        """Copy the metrics of this worker, and return a registry with the sums over all workers.

        The metrics of the others are at most `copy_interval_seconds` old. While the directory
        cannot be used, there are only the gauges of this worker. This takes a while if there are
        many metrics, so call it in a thread.
        """
        self._copy()
        own = () if self._is_stored else self._metrics.collectors
        registry = CollectorRegistry()
        registry.register(SharedFiles(self._directory, own))
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
            self._is_stored = catch_up(self._directory)

    def _end(self) -> None:
        with self._lock:
            self._metrics.try_copy()
            self._metrics.clear_gauges()
