"""A payment provider in memory, and payments to try it with."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from uuid import UUID, uuid4

from example_service.infra.database.database import Database
from example_service.payments.models import Payment, PaymentOrder, PaymentStatus
from example_service.payments.provider import Charged, Declined, PaymentProvider
from example_service.payments.repository import PaymentRepository
from tests.databases import NOON, at

Meanwhile: TypeAlias = Callable[[], Awaitable[None]]

ORDER = PaymentOrder(amount=1250, currency="EUR", customer_id="customer-7")


def pending_payment(**values: Any) -> Payment:
    """A payment that was taken up at noon, for half a minute."""
    given = {
        "id": uuid4(),
        "idempotency_key": str(uuid4()),
        "status": PaymentStatus.PENDING,
        "attempts": 0,
        "created_at": NOON,
        "due_at": at(30),
        **ORDER.model_dump(),
    }
    return Payment(**given | values)


async def found(database: Database, payment: Payment) -> Payment:
    """A payment as whoever holds this database sees it now."""
    async with database.transaction() as session:
        there = await PaymentRepository(session).find(payment.id)
    assert there is not None
    return there


async def nothing() -> None:
    """Let nothing happen."""


class FakeProvider(PaymentProvider):
    """Charges each payment once, and fails as it is told.

    Attributes:
        calls: What it was asked, oldest first: the method and the payment's id.
        charged: How often money has moved, by payment.
        fault: Raised instead of an answer, where there is one.
        charges_before_fault: Whether only the answer is lost, and the money has moved.
        declines: Whether it declines what it has not charged yet.
        meanwhile: Awaited before anything is charged.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, UUID]] = []
        self.charged: Counter[UUID] = Counter()
        self.fault: Exception | None = None
        self.charges_before_fault = False
        self.declines = False
        self.meanwhile: Meanwhile = nothing

    async def charge(self, payment_id: UUID, order: PaymentOrder) -> Charged | Declined:
        """Charge, or repeat the answer of the first time."""
        assert order == ORDER
        self.calls.append(("charge", payment_id))
        await self.meanwhile()
        if self.fault is not None and not self.charges_before_fault:
            raise self.fault
        if not self.charged[payment_id]:
            if self.declines:
                return Declined()
            self.charged[payment_id] += 1
        if self.fault is not None:
            raise self.fault
        return Charged(f"ch_{payment_id}")

    async def find_charge(self, payment_id: UUID, order: PaymentOrder) -> Charged | None:
        """Tell whether money has moved."""
        assert order == ORDER
        self.calls.append(("find_charge", payment_id))
        await self.meanwhile()
        if self.fault is not None:
            raise self.fault
        return Charged(f"ch_{payment_id}") if self.charged[payment_id] else None
