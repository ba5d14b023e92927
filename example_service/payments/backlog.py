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

# Seconds that the end of the service waits for a count that has begun.
_STOP_SECONDS = 1.0


class BacklogWatch:
    """Keeps the figures of pending payments up to date.

    It does so whether or not a worker runs: that none does is one of the reasons why payments grow
    old.

    Args:
        database: Where payments are.
        metrics: Where the figures go.
        moment: The clock of the database.
        steady_clock: Gives steady seconds.
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
        """Count again and again until the end of the block, which waits for a count in progress.

        A count that is cancelled while it connects would leave its connection open.
        """
        work = self._count_regularly(every_seconds)
        async with in_background(
            work, self._stopped, name="backlog watch", stop_seconds=_STOP_SECONDS
        ):
            yield

    async def count(self) -> None:
        """Count once. While the database does not answer, the oldest payment it had grows older."""
        try:
            last = await self._database.run(
                lambda session: PaymentRepository(session, self._moment).backlog()
            )
        except (CircuitOpenError, DatabaseUnavailableError):
            # The breaker of the database has logged it.
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
