"""Finishes pending payments in the background, once the circuit lets it.

Every process of the service has one, and they share the work through the database: what one has
taken up, no other sees until the end of its claim. A process may be killed at any moment; what it
had taken up is due again then.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from example_service.core.background import KeepGoing, in_background, pause
from example_service.core.lifecycle import is_draining
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 4.0
"""Below the five seconds after the time of grace that a process has to clean up."""

_LONGEST_PAUSE_SECONDS: Final = 5.0

_GRANTED_PROBE_SECONDS: Final = 0.5
"""Half the time for which a fleet keeps the right to a probe."""


class PaymentWorker:
    """Takes up payments that are due, again and again.

    Args:
        service: Works on each of them.
        breaker: The circuit of the provider; while it is open nothing is taken up.
        settings: How often to look, and how many to work on at once.
        stop_seconds: How long the payments in work have to be finished at the end.
        is_stopping: Whether to take nothing more up, as while the service drains.
    """

    def __init__(
        self,
        service: PaymentService,
        breaker: CircuitBreaker,
        settings: PaymentSettings,
        *,
        stop_seconds: float = STOP_SECONDS,
        is_stopping: Callable[[], bool] = is_draining,
    ) -> None:
        self._service = service
        self._breaker = breaker
        self._settings = settings
        self._stop_seconds = stop_seconds
        self._is_stopping = is_stopping
        self._stopped = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the end of the block, which waits for the payments in work, with a limit.

        Payments that are cut off then are due again at the end of their claim.
        """
        work = self._work()
        async with in_background(
            work, self._stopped, name="payment worker", stop_seconds=self._stop_seconds
        ):
            yield

    async def run_once(self) -> float:
        """Work on what is due now.

        Returns:
            Seconds after which to look again; 0 where more may be due already.
        """
        wait, limit = await self._admission()
        if limit == 0:
            return wait
        claims = await self._service.take_up(limit)
        outcomes = await asyncio.gather(*map(self._service.work_on, claims), return_exceptions=True)
        for claim, outcome in zip(claims, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logger.error(
                    "Work on a payment ended with an unexpected error; it will be taken up again",
                    extra={"payment_id": str(claim.payment.id)},
                    exc_info=outcome,
                )
        # After a probe, the circuit has to show first whether there may be more.
        return wait if len(claims) < limit or self._breaker.is_half_open else 0.0

    async def _admission(self) -> tuple[float, int]:
        """How long to wait before the next look, and how many payments the circuit lets through."""
        poll_seconds = self._settings.poll_seconds
        if self._is_stopping():
            return poll_seconds, 0
        if self._breaker.is_open and (wait := await self._wait_for_probe()) > 0:
            return wait, 0
        if self._breaker.is_half_open:
            return poll_seconds, min(self._breaker.half_open_max_calls, self._settings.batch_size)
        return poll_seconds, self._settings.batch_size

    async def _wait_for_probe(self) -> float:
        """Seconds until the open circuit may let a probe through; 0 if it does now."""
        wait = self._breaker.get_metrics()["retry_after"]
        if wait is None:
            return self._settings.poll_seconds
        if wait > 0:
            # An operator may close the circuit meanwhile, so it is looked at now and then.
            return min(float(wait), _LONGEST_PAUSE_SECONDS)
        # In a fleet, a probe needs a right that is granted only after a call was refused, and that
        # lasts for a second. No payment has to be taken up for that, but without one that is due it
        # would be missing in a process that has calls.
        if not await self._service.has_due():
            return self._settings.poll_seconds
        try:
            self._breaker.release(self._breaker.acquire())
        except CircuitOpenError:
            return min(self._settings.poll_seconds, _GRANTED_PROBE_SECONDS)
        return 0.0

    async def _work(self) -> None:
        keep_going = KeepGoing(logger, "The payment worker failed; it goes on")
        while not self._stopped.is_set():
            wait = _LONGEST_PAUSE_SECONDS
            with keep_going:
                wait = await self._run_once_or_wait()
            await self._pause(wait)

    async def _run_once_or_wait(self) -> float:
        """Work on what is due now; without the database, wait as long as its circuit asks."""
        try:
            return await self.run_once()
        except (CircuitOpenError, DatabaseUnavailableError) as error:
            # The breaker of the database has logged it.
            wait = max(self._settings.poll_seconds, getattr(error, "retry_after", None) or 0.0)
            return min(wait, _LONGEST_PAUSE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        await pause(self._stopped, seconds)
