"""Processes payments from order to charge without losing any.

An order is stored before the provider is called, so that an accepted payment is never lost. The
provider is called outside of any transaction, and its answer is stored. If anything fails after the
order was stored, even the process, the payment stays pending and a worker claims it later. The
payment's id is the idempotency key for the provider, so repeated calls do not charge it again.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from example_service.infra.database.clock import SecondsFromNow
from example_service.infra.database.database import Database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import CircuitOpenError
from example_service.payments.answers import Charged, Outcome
from example_service.payments.exceptions import (
    IdempotencyKeyReusedError,
    NoFreeConnectionError,
    ProviderError,
)
from example_service.payments.metrics import PaymentMetrics, payment_metrics
from example_service.payments.models import (
    UNNAMED,
    FailureReason,
    Payment,
    PaymentOrder,
    PaymentStatus,
)
from example_service.payments.provider import PaymentProvider
from example_service.payments.repository import Moment, PaymentRepository, Settled
from example_service.payments.settings import PaymentSettings

logger = logging.getLogger(__name__)

_JITTER: Final = 0.25
"""The relative jitter of waits, so that payments that fail together are not retried together."""

_MAX_DOUBLINGS: Final = 30
"""Enough to exceed every possible limit. A float would overflow at 1,024 doublings."""

_STEADY_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return the seconds on a monotonic clock that also runs while the machine is suspended.

    Changes of the wall-clock time do not affect it. Only compare values from the same process.
    """
    return time.clock_gettime(_STEADY_CLOCK)


@dataclass(frozen=True, slots=True)
class Claim:
    """A payment that this process has claimed.

    Attributes:
        payment: The payment as it was claimed.
        ends_at: When the claim ends and other processes may claim the payment, in steady seconds.
        is_given_up: Whether it has reached the age at which it is cancelled instead of charged.
    """

    payment: Payment
    ends_at: float
    is_given_up: bool = False


class PaymentService:
    """Accepts payments, and works on them until they are finished.

    Args:
        database: The database with the payments.
        provider: The payment provider.
        settings: The durations of claims and waits, and the age at which payments are given up.
        metrics: The metrics to update. Defaults to those of this process.
        moment: The clock of the database.
        steady_clock: Returns steady seconds, to notice when this process was suspended.
    """

    def __init__(
        self,
        database: Database,
        provider: PaymentProvider,
        settings: PaymentSettings,
        *,
        metrics: PaymentMetrics | None = None,
        moment: Moment = SecondsFromNow,
        steady_clock: Callable[[], float] = steady_seconds,
    ) -> None:
        self._database = database
        self._provider = provider
        self._settings = settings
        # Twice the longest wait of this instance, because others may have other settings.
        self._max_wait_seconds = 2.0 * max(
            settings.claim_seconds, settings.retry_seconds, settings.max_retry_seconds
        )
        self._metrics = metrics or payment_metrics()
        self._moment = moment
        self._steady_clock = steady_clock

    async def pay(
        self, order: PaymentOrder, idempotency_key: str, caller: str = UNNAMED
    ) -> Payment:
        """Accept an order and try to charge it immediately.

        When this returns, the payment is stored. It is `pending` if the provider failed or its
        circuit is open. If the caller has already sent the same order with the same key, the
        existing payment is returned.

        Raises:
            IdempotencyKeyReusedError: If the caller's key belongs to another order.
            CircuitOpenError: If the circuit of the database is open. Nothing is stored.
            DatabaseUnavailableError: If it is not known whether the payment was stored. Repeat the
                call with the same key.
        """
        payment_id, claim_seconds = uuid4(), self._settings.claim_seconds

        async def store(session: AsyncSession) -> tuple[Payment | None, Payment | None]:
            payments = self._payments(session)
            if caller != UNNAMED:
                await payments.adopt(idempotency_key, order, caller)
            added = await payments.add(
                payment_id, idempotency_key, order, claim_seconds, caller=caller
            )
            return added, None if added else await payments.find_by_key(idempotency_key, caller)

        ends_at = self._claim_end()
        added, earlier = await self._database.run(store)
        if added is not None:
            return await self.process_claim(Claim(added, ends_at))
        if earlier is None:
            # It was deleted between the two statements. It is not stored, so it is not charged.
            raise DatabaseUnavailableError("The payment with this key is gone.")
        if earlier.order != order:
            raise IdempotencyKeyReusedError
        return earlier

    async def has_due(self) -> bool:
        """Whether a payment is due.

        Raises:
            CircuitOpenError, DatabaseUnavailableError: If the database is unavailable.
        """
        return await self._database.run(lambda session: self._payments(session).has_due())

    async def claim_due(self, limit: int) -> list[Claim]:
        """Claim payments that are due. Work on them without delay.

        Raises:
            CircuitOpenError, DatabaseUnavailableError: If the database is unavailable.
        """
        of = self._settings
        # Computed before the database reads its clock, so that the claim lasts at least this long.
        ends_at = self._claim_end()
        claimed = await self._database.run(
            lambda session: self._payments(session).claim_due(
                of.claim_seconds, of.give_up_seconds, limit
            )
        )
        return [Claim(payment, ends_at, is_given_up) for payment, is_given_up in claimed]

    async def process_claim(self, claim: Claim) -> Payment:
        """Charge a claimed payment, or cancel it if it is given up.

        Returns:
            The payment: finished, unresolved, or pending and due again later. If the database
            cannot store the outcome, the claim remains and the payment is due again at its end. The
            provider then repeats its answer.
        """
        payment = claim.payment
        if claim.ends_at <= self._steady_clock():
            # This process was suspended until its claim ended, so another may have the payment.
            return payment
        try:
            return await self._outcome(claim)
        except (CircuitOpenError, DatabaseUnavailableError) as error:
            logger.warning(
                "The outcome of an attempt could not be stored",
                extra={"payment_id": str(payment.id), "reason": str(error)},
            )
            return payment

    def usual_wait_seconds(self, attempts: int) -> float:
        """Return the wait in seconds after a number of failed attempts, without jitter."""
        doublings = min(max(attempts - 1, 0), _MAX_DOUBLINGS)
        return min(self._settings.retry_seconds * 2.0**doublings, self._settings.max_retry_seconds)

    async def _outcome(self, claim: Claim) -> Payment:
        payment = claim.payment
        try:
            outcome = await self._ask_provider(claim)
        except (CircuitOpenError, NoFreeConnectionError):
            # The provider was not called, so this was not an attempt. The payment is due again
            # soon: a worker does not claim payments while its circuit is open, but the circuit of
            # another worker may be closed.
            return await self._release(payment, self._settings.retry_seconds, payment.attempts)
        except ProviderError as error:
            self._metrics.attempted("failed")
            return await self._try_again_later(claim, error)
        self._metrics.attempted("answered")
        if outcome is None:
            return await self._leave_unresolved(payment)
        if isinstance(outcome, Charged):
            return await self._succeed(payment, outcome.charge_id)
        is_ours = claim.is_given_up and self._settings.provider_can_cancel
        if is_ours and outcome.reason is FailureReason.CANCELLED:
            return await self._fail(payment, FailureReason.EXPIRED)
        return await self._fail(payment, outcome.reason)

    async def _ask_provider(self, claim: Claim) -> Outcome | None:
        """Charge the payment or, if it is given up, cancel it.

        Only the provider can guarantee that a payment was not and never will be charged. That it
        does not know a payment is no guarantee, because a charge may not have arrived yet.

        Returns:
            The outcome. None if the payment is given up and the provider can neither cancel nor
            find it.
        """
        payment = claim.payment
        if not claim.is_given_up:
            return await self._provider.charge(payment.id, payment.order)
        if self._settings.provider_can_cancel:
            return await self._provider.cancel(payment.id, payment.order)
        return await self._provider.find_charge(payment.id, payment.order)

    async def _try_again_later(self, claim: Claim, error: ProviderError) -> Payment:
        payment, attempts = claim.payment, claim.payment.attempts + 1
        logger.warning(
            "A payment that was given up is not cancelled yet"
            if claim.is_given_up
            else "A payment could not be charged yet",
            extra={
                "payment_id": str(payment.id),
                "attempts": attempts,
                "reason": type(error).__name__,
                "detail": str(error),
            },
        )
        return await self._release(payment, self.usual_wait_seconds(attempts), attempts)

    async def _succeed(self, payment: Payment, charge_id: str) -> Payment:
        now = self._settled(
            await self._database.run(
                lambda session: self._payments(session).succeed(payment, charge_id)
            )
        )
        if now.charge_id != charge_id:
            logger.error(
                "A charge contradicts the recorded outcome; check with the provider whether to "
                "refund it",
                extra={"payment_id": str(payment.id), "status": str(now.status)},
            )
        return now

    async def _leave_unresolved(self, payment: Payment) -> Payment:
        unresolved = self._settled(
            await self._database.run(
                lambda session: self._payments(session).leave_unresolved(payment)
            )
        )
        if unresolved.status is PaymentStatus.UNRESOLVED:
            logger.error(
                "A payment was given up; check with the provider whether it was charged",
                extra={"payment_id": str(payment.id), "attempts": payment.attempts},
            )
        return unresolved

    async def _fail(self, payment: Payment, reason: FailureReason) -> Payment:
        failed = self._settled(
            await self._database.run(lambda session: self._payments(session).fail(payment, reason))
        )
        if failed.status is PaymentStatus.FAILED:
            logger.warning(
                "A payment has failed; nothing was charged",
                extra={
                    "payment_id": str(payment.id),
                    "attempts": payment.attempts,
                    "reason": reason.value,
                },
            )
        return failed

    def _settled(self, settled: Settled) -> Payment:
        """Count a committed result, unless another process had already recorded one."""
        if settled.is_changed:
            self._metrics.finished(settled.payment.status)
        return settled.payment

    async def _release(self, payment: Payment, seconds: float, attempts: int) -> Payment:
        wait_seconds = seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        return await self._database.run(
            lambda session: self._payments(session).release(payment, wait_seconds, attempts)
        )

    def _payments(self, session: AsyncSession) -> PaymentRepository:
        return PaymentRepository(session, self._moment, max_wait_seconds=self._max_wait_seconds)

    def _claim_end(self) -> float:
        return self._steady_clock() + self._settings.claim_seconds
