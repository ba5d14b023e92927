"""Finishes pending payments in the background when the circuit admits calls.

Every process of the service has a worker. They share the work through the database: a payment that
one has claimed is invisible to the others until the claim ends. A process may be killed at any
time; its payments are due again when their claims end.
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
"""Less than the five seconds that a process has for its cleanup after the drain."""

_MAX_PAUSE_SECONDS: Final = 5.0

_GRANTED_PROBE_SECONDS: Final = 0.5
"""Half the time for which a fleet reserves a probe for a process."""


class PaymentWorker:
    """Periodically claims payments that are due and works on them.

    Args:
        service: Claims payments and works on each of them.
        breaker: The breaker of the provider. While its circuit is open, no payments are claimed.
        settings: The polling interval and the batch size.
        stop_seconds: How long the shutdown waits for payments in progress.
        is_stopping: Returns whether to stop claiming payments, as while the service drains.
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
        """Work until the end of the block, which waits for payments in progress up to a limit.

        Payments that are interrupted then are due again when their claims end.
        """
        work = self._work()
        async with in_background(
            work, self._stopped, name="payment worker", stop_seconds=self._stop_seconds
        ):
            yield

    async def run_once(self) -> float:
        """Work on one batch of due payments.

        Returns:
            The seconds until the next poll. 0 if more payments may be due already.
        """
        wait, limit = await self._admission()
        if limit == 0:
            return wait
        claims = await self._service.claim_due(limit)
        outcomes = await asyncio.gather(
            *map(self._service.process_claim, claims), return_exceptions=True
        )
        for claim, outcome in zip(claims, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logger.error(
                    "Processing a payment failed unexpectedly; it will be retried",
                    extra={"payment_id": str(claim.payment.id)},
                    exc_info=outcome,
                )
        # After a probe, the state of the circuit decides whether more calls are admitted.
        return wait if len(claims) < limit or self._breaker.is_half_open else 0.0

    async def _admission(self) -> tuple[float, int]:
        """Return the seconds until the next poll, and how many payments the circuit admits."""
        poll_seconds = self._settings.poll_seconds
        if self._is_stopping():
            return poll_seconds, 0
        if self._breaker.is_open and (wait := await self._wait_for_probe()) > 0:
            return wait, 0
        if self._breaker.is_half_open:
            return poll_seconds, min(self._breaker.half_open_max_calls, self._settings.batch_size)
        return poll_seconds, self._settings.batch_size

    async def _wait_for_probe(self) -> float:
        """Return the seconds until the open circuit may admit a probe, 0 if it admits one now."""
        wait = self._breaker.get_metrics()["retry_after"]
        if wait is None:
            return self._settings.poll_seconds
        if wait > 0:
            # Poll more often, because an operator may close the circuit earlier.
            return min(float(wait), _MAX_PAUSE_SECONDS)
        # A fleet reserves a probe for a process, for one second, after it has refused a call of
        # that process. The call below requests it without claiming a payment. If no payment is due,
        # the reservation would only keep the probe from a process that has calls to make.
        if not await self._service.has_due():
            return self._settings.poll_seconds
        try:
            self._breaker.release(self._breaker.acquire())
        except CircuitOpenError:
            return min(self._settings.poll_seconds, _GRANTED_PROBE_SECONDS)
        return 0.0

    async def _work(self) -> None:
        keep_going = KeepGoing(logger, "The payment worker failed; it continues")
        while not self._stopped.is_set():
            wait = _MAX_PAUSE_SECONDS
            with keep_going:
                wait = await self._run_once_or_wait()
            await self._pause(wait)

    async def _run_once_or_wait(self) -> float:
        """Work on one batch. If the database is unavailable, wait as long as its circuit asks."""
        try:
            return await self.run_once()
        except (CircuitOpenError, DatabaseUnavailableError) as error:
            # The database's breaker has already logged the error.
            wait = max(self._settings.poll_seconds, getattr(error, "retry_after", None) or 0.0)
            return min(wait, _MAX_PAUSE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        await pause(self._stopped, seconds)
