"""Payments from order to charge, with nothing lost in between.

An order is stored before the provider hears of it, so that a payment which was accepted is never
forgotten. Then the provider is asked, outside of any transaction, and its answer is stored.
Whatever fails after the order was stored, the process included, leaves a pending payment that
a worker takes up later. The payment's id is the idempotency key towards the provider, so that
calling it again charges nothing again.
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
"""Share by which waits are spread, so that payments that failed together do not return together."""

_MOST_DOUBLINGS: Final = 30
"""Beyond every limit that can be set; a float would overflow at 1,024."""

_STEADY_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Seconds that only ever pass, also while this process or the machine is suspended.

    No change of the time of day moves them. They compare moments of this process alone.
    """
    return time.clock_gettime(_STEADY_CLOCK)


@dataclass(frozen=True, slots=True)
class Claim:
    """A payment that this process has taken up.

    Attributes:
        payment: As it is in the database since then.
        ends_at: Until when other processes leave it alone, in steady seconds.
        is_given_up: Whether it has reached the age at which it is charged no more.
    """

    payment: Payment
    ends_at: float
    is_given_up: bool = False


class PaymentService:
    """Accepts payments, and works on them until they are finished.

    Args:
        database: Where payments are.
        provider: Who charges them.
        settings: How long they are held, how long they wait, and when they are given up.
        metrics: Counts attempts and finished payments; those of this process if left out.
        moment: The clock of the database, which decides about payments.
        steady_clock: Gives steady seconds; they tell how long this process was suspended.
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
        self._metrics = metrics or payment_metrics()
        self._moment = moment
        self._steady_clock = steady_clock

    async def pay(
        self, order: PaymentOrder, idempotency_key: str, caller: str = UNNAMED
    ) -> Payment:
        """Accept an order and try to have it charged at once.

        When this returns, the payment is stored. It comes back as `pending` where the provider or
        its circuit did not let it be finished now, and as it is where the same order came earlier
        with the same key from the same caller.

        Raises:
            IdempotencyKeyReusedError: If the caller's key belongs to another order.
            CircuitOpenError: If the circuit of the database is open; nothing is stored.
            DatabaseUnavailableError: If the database cannot tell that the payment is stored. The
                same call with the same key later finds out.
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
            return await self.work_on(Claim(added, ends_at))
        if earlier is None:
            # It was deleted between the two statements. What is not stored is not charged.
            raise DatabaseUnavailableError("The payment with this key is gone.")
        if earlier.order != order:
            raise IdempotencyKeyReusedError
        return earlier

    async def has_due(self) -> bool:
        """Whether a payment is due.

        Raises:
            CircuitOpenError, DatabaseUnavailableError: If the database cannot serve.
        """
        return await self._database.run(lambda session: self._payments(session).has_due())

    async def take_up(self, limit: int) -> list[Claim]:
        """Take up payments that are due; they are to be worked on at once.

        Raises:
            CircuitOpenError, DatabaseUnavailableError: If the database cannot serve.
        """
        of = self._settings
        # Read before the database reads its clock, so that a claim never ends earlier than here.
        ends_at = self._claim_end()
        claimed = await self._database.run(
            lambda session: self._payments(session).claim_due(
                of.claim_seconds, of.give_up_seconds, limit
            )
        )
        return [Claim(payment, ends_at, is_given_up) for payment, is_given_up in claimed]

    async def work_on(self, claim: Claim) -> Payment:
        """Have a payment charged that was taken up, or find out that it never will be.

        Returns:
            The payment as it is then: finished, left to people, or pending and due again later.
            Where the database cannot store the outcome the payment stays taken up, and is due again
            after the end of that; the provider will repeat its answer.
        """
        payment = claim.payment
        if claim.ends_at <= self._steady_clock():
            # This process was suspended for so long that another may have the payment by now.
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
        """How long a payment waits after so many attempts, before that is spread."""
        doublings = min(max(attempts - 1, 0), _MOST_DOUBLINGS)
        return min(self._settings.retry_seconds * 2.0**doublings, self._settings.max_retry_seconds)

    async def _outcome(self, claim: Claim) -> Payment:
        payment = claim.payment
        try:
            outcome = await self._ask_provider(claim)
        except (CircuitOpenError, NoFreeConnectionError):
            # The provider was not asked, so this was no attempt. The payment is due again soon:
            # while a circuit is open its worker takes nothing up, and another may have none open.
            return await self._put_down(payment, self._settings.retry_seconds, payment.attempts)
        except ProviderError as error:
            self._metrics.attempted("failed")
            return await self._try_again_later(claim, error)
        self._metrics.attempted("answered")
        if outcome is None:
            return await self._leave_unresolved(payment)
        if isinstance(outcome, Charged):
            charge_id = outcome.charge_id
            return self._settled(
                await self._database.run(
                    lambda session: self._payments(session).succeed(payment, charge_id)
                )
            )
        is_ours = claim.is_given_up and outcome.reason is FailureReason.CANCELLED
        return await self._fail(payment, FailureReason.EXPIRED if is_ours else outcome.reason)

    async def _ask_provider(self, claim: Claim) -> Outcome | None:
        """Have the payment charged or, once it is given up, have it never be charged.

        Only the provider can say that a payment was not charged and never will be. "Unknown" says
        neither, because a charge may still be on its way.

        Returns:
            None if it is given up at a provider that cannot cancel, and that knows nothing of it.
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
        return await self._put_down(payment, self.usual_wait_seconds(attempts), attempts)

    async def _leave_unresolved(self, payment: Payment) -> Payment:
        unresolved = self._settled(
            await self._database.run(
                lambda session: self._payments(session).leave_unresolved(payment)
            )
        )
        if unresolved.status is PaymentStatus.UNRESOLVED:
            logger.error(
                "A payment was given up; look at the provider whether it was charged",
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
        """Count a result that has been committed, unless another process had recorded one."""
        if settled.is_changed:
            self._metrics.finished(settled.payment.status)
        return settled.payment

    async def _put_down(self, payment: Payment, seconds: float, attempts: int) -> Payment:
        wait_seconds = seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        return await self._database.run(
            lambda session: self._payments(session).put_down(payment, wait_seconds, attempts)
        )

    def _payments(self, session: AsyncSession) -> PaymentRepository:
        return PaymentRepository(session, self._moment)

    def _claim_end(self) -> float:
        return self._steady_clock() + self._settings.claim_seconds
