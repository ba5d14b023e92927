"""A payment provider in memory, and payments for tests."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import httpx
from sqlalchemy import literal

from example_service.infra.database.base import UTCDateTime
from example_service.infra.database.database import Database
from example_service.infra.resilience import CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.answers import Charged, NotCharged, Outcome
from example_service.payments.exceptions import (
    ChargeInProgressError,
    InvalidProviderAnswerError,
    NoFreeConnectionError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from example_service.payments.models import FailureReason, Payment, PaymentOrder, PaymentStatus
from example_service.payments.provider import PaymentProvider
from example_service.payments.repository import Moment, PaymentRepository
from example_service.payments.service import Claim
from tests.databases import NOON, at

Meanwhile: TypeAlias = Callable[[], Awaitable[None]]

Answering: TypeAlias = Callable[[httpx.Request], httpx.Response]

BASE_URL = "https://provider.test"
ATTEMPTS = [
    ProviderUnavailableError("down"),
    ProviderTimeoutError("slow"),
    InvalidProviderAnswerError("nonsense"),
    ChargeInProgressError(),
]
"""Errors of calls that may have reached the provider."""
NOT_ASKED = [CircuitOpenError("open"), NoFreeConnectionError("busy")]
"""Errors of calls that never reached the provider."""

ORDER = PaymentOrder(amount=1250, currency="EUR", customer_id="customer-7")


def pending_payment(**values: Any) -> Payment:
    """A payment that was claimed at noon for half a minute."""
    given = {
        "id": uuid4(),
        "caller": "",
        "idempotency_key": str(uuid4()),
        "status": PaymentStatus.PENDING,
        "attempts": 0,
        "created_at": NOON,
        "due_at": at(30),
        **ORDER.model_dump(),
    }
    return Payment(**given | values)


async def stored(database: Database, *payments: Payment) -> list[UUID]:
    """Store payments unchanged, and return their IDs."""
    ids = [payment.id for payment in payments]
    async with database.transaction() as session:
        session.add_all(payments)
    return ids


async def claimed(database: Database, **values: Any) -> Claim:
    """Store a pending payment that was claimed at noon."""
    payment = pending_payment(**values)
    await stored(database, payment)
    assert payment.due_at is not None
    return Claim(payment, ends_at=payment.due_at.timestamp())


def outcome(payment: Payment) -> tuple[object, ...]:
    """The fields of a payment that may change, except the due time."""
    return (
        payment.status,
        payment.failure_reason,
        payment.charge_id,
        payment.attempts,
        payment.finished_at,
    )


def moments(clock: FakeClock) -> Moment:
    """The clock of a database, which a test controls."""
    return lambda seconds: literal(datetime.fromtimestamp(clock.now + seconds, UTC), UTCDateTime)


async def found(database: Database, payment: Payment) -> Payment:
    """The present state of a payment in this database."""
    async with database.transaction() as session:
        there = await PaymentRepository(session).find(payment.id)
    assert there is not None
    return there


def answering(status: int, **content: Any) -> Answering:
    """A provider that always gives the same response."""
    return lambda _request: httpx.Response(status, **content)


async def nothing() -> None:
    """Do nothing."""


class FakeProvider(PaymentProvider):
    """Charges each payment once, and fails as a test demands.

    Attributes:
        calls: Its calls, oldest first: the method and the payment's ID.
        charged: How often money has moved, by payment.
        ended: Why a payment is never charged, by payment.
        fault: The error to raise instead of an answer, or None.
        charges_before_fault: Whether the provider acts before the fault, which loses its answer.
        refuses_with: The reason to refuse every payment that is not yet charged.
        meanwhile: Awaited before each call.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, UUID]] = []
        self.charged: Counter[UUID] = Counter()
        self.ended: dict[UUID, FailureReason] = {}
        self.fault: Exception | None = None
        self.charges_before_fault = False
        self.refuses_with: FailureReason | None = None
        self.meanwhile: Meanwhile = nothing

    async def charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Charge a payment, or repeat the first answer."""
        await self._called("charge", payment_id, order)
        if self.fault is None or self.charges_before_fault:
            self._move_money(payment_id)
        return self._outcome(payment_id)

    async def cancel(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Never charge a payment, unless it was charged before."""
        await self._called("cancel", payment_id, order)
        if (self.fault is None or self.charges_before_fault) and not self.charged[payment_id]:
            self.ended.setdefault(payment_id, FailureReason.CANCELLED)
        return self._outcome(payment_id)

    async def find_charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome | None:
        """Return the outcome of a payment."""
        await self._called("find_charge", payment_id, order)
        known = self.charged[payment_id] or payment_id in self.ended
        return self._outcome(payment_id) if known or self.fault else None

    def arrive_late(self, payment_id: UUID) -> None:
        """Let a charge arrive after its caller has left."""
        self._move_money(payment_id)

    async def _called(self, method: str, payment_id: UUID, order: PaymentOrder) -> None:
        assert order == ORDER
        self.calls.append((method, payment_id))
        await self.meanwhile()

    def _move_money(self, payment_id: UUID) -> None:
        if self.charged[payment_id] or payment_id in self.ended:
            return
        if self.refuses_with is not None:
            self.ended[payment_id] = self.refuses_with
        else:
            self.charged[payment_id] += 1

    def _outcome(self, payment_id: UUID) -> Outcome:
        if self.fault is not None:
            raise self.fault
        if payment_id in self.ended:
            return NotCharged(self.ended[payment_id])
        return Charged(f"ch_{payment_id}")
