"""Counts the pending payments for monitoring, every few seconds."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from example_service.core.background import KeepGoing, in_background, pause
from example_service.infra.database.clock import SecondsFromNow
from example_service.infra.database.database import Database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import CircuitOpenError
from example_service.payments.metrics import PaymentMetrics
from example_service.payments.repository import Backlog, Moment, PaymentRepository
from example_service.payments.service import steady_seconds

logger = logging.getLogger(__name__)

# How long the shutdown waits for a count in progress.
_STOP_SECONDS = 1.0


class BacklogWatch:
    """Keeps the metrics of pending payments up to date.

    It also runs in processes without a worker, because a missing worker is one of the reasons why
    payments stay pending.

    Args:
        database: The database with the payments.
        metrics: The metrics to update.
        moment: The clock of the database.
        steady_clock: Returns steady seconds.
    """

    def __init__(
        self,
        database: Database,
        metrics: PaymentMetrics,
        *,
        moment: Moment = SecondsFromNow,
        steady_clock: Callable[[], float] = steady_seconds,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._moment = moment
        self._steady_clock = steady_clock
        self._last = Backlog(0, 0.0)
        self._counted_at = 0.0
        self._stopped = asyncio.Event()

    @asynccontextmanager
    async def running(self, every_seconds: float) -> AsyncIterator[None]:
        """Count periodically until the end of the block.

        The end waits for a count in progress: if it were cancelled while connecting, its connection
        would stay open.
        """
        work = self._count_regularly(every_seconds)
        async with in_background(
            work, self._stopped, name="backlog watch", stop_seconds=_STOP_SECONDS
        ):
            yield

    async def count(self) -> None:
        """Count once. If the database is unavailable, only the age of the oldest payment grows."""
        try:
            last = await self._database.run(
                lambda session: PaymentRepository(session, self._moment).backlog()
            )
        except (CircuitOpenError, DatabaseUnavailableError):
            # The database's breaker has already logged the error.
            self._grow_older()
            return
        except Exception:
            self._grow_older()
            raise
        self._last, self._counted_at = last, self._steady_clock()
        self._metrics.pending.set(last.pending)
        self._metrics.oldest_pending_seconds.set(last.oldest_seconds)

    def _grow_older(self) -> None:
        if self._last.pending:
            passed = self._steady_clock() - self._counted_at
            self._metrics.oldest_pending_seconds.set(self._last.oldest_seconds + passed)

    async def _count_regularly(self, every_seconds: float) -> None:
        keep_going = KeepGoing(logger, "The count of pending payments failed; it goes on")
        while not self._stopped.is_set():
            with keep_going:
                await self.count()
            await pause(self._stopped, every_seconds)
