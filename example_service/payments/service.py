"""Payments from order to charge, with nothing lost in between.

An order is stored before the provider hears of it, so that a payment which was accepted is never
forgotten. Then the provider is asked, outside of any transaction, and its answer is stored.
Whatever fails after the order was stored, the process included, leaves a pending payment that
somebody takes up later. The payment's id is the idempotency key towards the provider, so that
calling it again charges nothing again.
"""

import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from example_service.infra.database.database import Database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import CircuitOpenError
from example_service.payments.exceptions import (
    IdempotencyKeyReusedError,
    NoFreeConnectionError,
    OrderRefusedError,
    ProviderError,
)
from example_service.payments.models import FailureReason, Payment, PaymentOrder, PaymentStatus
from example_service.payments.provider import Charged, Declined, PaymentProvider
from example_service.payments.repository import PaymentRepository
from example_service.payments.settings import PaymentSettings

logger = logging.getLogger(__name__)

_JITTER: Final = 0.25
"""Share by which waits are spread, so that payments that failed together do not return together."""

_MOST_DOUBLINGS: Final = 30
"""Beyond every limit that can be set; a float would overflow at 1,024."""


def utc_now() -> datetime:
    """The time of day. It orders payments and spaces attempts; nothing is charged twice for it."""
    return datetime.now(UTC)


class PaymentService:
    """Accepts payments, and works on them until they are finished.

    Args:
        database: Where payments are.
        provider: Who charges them.
        settings: How long they are held, how long they wait, and when they are given up.
        now: Where the time comes from.
    """

    def __init__(
        self,
        database: Database,
        provider: PaymentProvider,
        settings: PaymentSettings,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._provider = provider
        self._settings = settings
        self._now = now

    async def pay(self, order: PaymentOrder, idempotency_key: str) -> Payment:
        """Accept an order and try to have it charged at once.

        From the moment on at which this could raise no more, the payment is stored. It comes back
        as `pending` where the provider or its circuit did not let it be finished now, and as it is
        where the same order came earlier with the same key.

        Raises:
            IdempotencyKeyReusedError: If the key belongs to another order.
            CircuitOpenError: If the circuit of the database is open; nothing is stored.
            DatabaseUnavailableError: If the database cannot tell that the payment is stored. The
                same call with the same key later finds out.
        """
        now = self._now()
        payment = Payment(
            id=uuid4(),
            idempotency_key=idempotency_key,
            status=PaymentStatus.PENDING,
            attempts=0,
            created_at=now,
            due_at=self._claim_end(now),
            **order.model_dump(),
        )

        async def store(session: AsyncSession) -> tuple[bool, Payment | None]:
            payments = PaymentRepository(session)
            is_new = await payments.add(payment)
            return is_new, None if is_new else await payments.find_by_key(idempotency_key)

        is_new, earlier = await self._database.run(store)
        if is_new:
            return await self.work_on(payment)
        if earlier is None:
            # It was deleted between the two statements. What is not stored is not charged.
            raise DatabaseUnavailableError("The payment with this key is gone.")
        if earlier.order != order:
            raise IdempotencyKeyReusedError
        return earlier

    async def take_up(self, limit: int) -> list[Payment]:
        """Take up payments that are due; they are to be worked on at once.

        Raises:
            CircuitOpenError, DatabaseUnavailableError: If the database cannot serve.
        """
        now = self._now()
        until = self._claim_end(now)
        return list(
            await self._database.run(
                lambda session: PaymentRepository(session).claim_due(now, until, limit)
            )
        )

    async def work_on(self, payment: Payment) -> Payment:
        """Have a payment charged that was taken up, or find out that it never will be.

        Returns:
            The payment as it is then: finished, or pending and due again later. Where the database
            cannot store the outcome the payment stays taken up, and is due again after the end of
            that; the provider will repeat its answer.
        """
        if payment.due_at is None or payment.due_at <= self._now():
            # This process was stopped for so long that somebody else may have the payment by now.
            return payment
        try:
            return await self._outcome(payment)
        except (CircuitOpenError, DatabaseUnavailableError) as error:
            logger.warning(
                "The outcome of an attempt could not be stored",
                extra={"payment_id": str(payment.id), "reason": str(error)},
            )
            return payment

    async def _outcome(self, payment: Payment) -> Payment:
        try:
            charge = await self._ask_provider(payment)
        except OrderRefusedError:
            return await self._fail(payment, FailureReason.REFUSED)
        except (CircuitOpenError, NoFreeConnectionError):
            # The provider was not asked, so this was no attempt. The payment is due again soon,
            # for a circuit keeps its worker from taking it up, and another may have none open.
            return await self._put_down(payment, self._settings.retry_seconds, payment.attempts)
        except ProviderError as error:
            attempts = payment.attempts + 1
            logger.warning(
                "A payment could not be charged yet",
                extra={
                    "payment_id": str(payment.id),
                    "attempts": attempts,
                    "reason": type(error).__name__,
                },
            )
            return await self._put_down(payment, self._retry_seconds(attempts), attempts)
        if charge is None:
            return await self._fail(payment, FailureReason.EXPIRED)
        if isinstance(charge, Declined):
            return await self._fail(payment, FailureReason.DECLINED)
        charge_id, now = charge.charge_id, self._now()
        return await self._database.run(
            lambda session: PaymentRepository(session).succeed(payment, charge_id, now)
        )

    async def _ask_provider(self, payment: Payment) -> Charged | Declined | None:
        """Charge, or ask for the charge of a payment that is too old to be charged now.

        Only the provider knows whether an attempt without an answer has charged, so nothing is
        given up before it has said no.
        """
        if self._now() - payment.created_at < timedelta(seconds=self._settings.give_up_seconds):
            return await self._provider.charge(payment.id, payment.order)
        return await self._provider.find_charge(payment.id, payment.order)

    async def _fail(self, payment: Payment, reason: FailureReason) -> Payment:
        now = self._now()
        failed = await self._database.run(
            lambda session: PaymentRepository(session).fail(payment, reason, now)
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

    async def _put_down(self, payment: Payment, seconds: float, attempts: int) -> Payment:
        wait = timedelta(seconds=seconds * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
        due_at = self._now() + wait
        return await self._database.run(
            lambda session: PaymentRepository(session).put_down(payment, due_at, attempts)
        )

    def _claim_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._settings.claim_seconds)

    def _retry_seconds(self, attempts: int) -> float:
        doublings = min(attempts - 1, _MOST_DOUBLINGS)
        return min(self._settings.retry_seconds * 2.0**doublings, self._settings.max_retry_seconds)
