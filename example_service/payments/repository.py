"""Payments in the database. Each method is part of the transaction whose session it is given."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from example_service.payments.models import FailureReason, Payment, PaymentStatus

_Insert: TypeAlias = Callable[..., postgresql.Insert | sqlite.Insert]
_INSERTS: Final[dict[str, _Insert]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
"""The standard has no "insert unless it is there", and these two write it alike."""


class PaymentRepository:
    """Finds and changes payments.

    What belongs to one process at a time is told by `due_at`: whoever takes a payment up moves it
    into the future, and settles it only if it still has the value that this gave it.

    Args:
        session: The transaction.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, payment: Payment) -> bool:
        """Add a payment, unless there is one with its idempotency key.

        Of several transactions that add the same key at once, one adds it; the others wait until
        that one has been committed.

        Returns:
            Whether it was added.
        """
        insert = _INSERTS[self._session.get_bind().dialect.name]
        added = await self._session.execute(
            insert(Payment)
            .values({one.key: getattr(payment, one.key) for one in Payment.__mapper__.column_attrs})
            .on_conflict_do_nothing(index_elements=[Payment.idempotency_key])
            .returning(Payment.id)
        )
        return added.scalar_one_or_none() is not None

    async def find(self, payment_id: UUID) -> Payment | None:
        """The payment with this id."""
        return await self._session.get(Payment, payment_id)

    async def find_by_key(self, idempotency_key: str) -> Payment | None:
        """The payment with this idempotency key."""
        query = select(Payment).where(Payment.idempotency_key == idempotency_key)
        return (await self._session.scalars(query)).one_or_none()

    async def newest(self, limit: int, older_than: Payment | None = None) -> Sequence[Payment]:
        """Payments from the newest to the oldest.

        Args:
            limit: How many at most.
            older_than: The payment after which to go on; None for the newest.
        """
        query = select(Payment).order_by(Payment.created_at.desc(), Payment.id.desc()).limit(limit)
        if older_than is not None:
            last = (older_than.created_at, older_than.id)
            query = query.where(tuple_(Payment.created_at, Payment.id) < last)
        return (await self._session.scalars(query)).all()

    async def claim_due(self, now: datetime, until: datetime, limit: int) -> Sequence[Payment]:
        """Take up payments that are due, those that have waited longest first.

        Those that another transaction is taking up at the same time are left to it: PostgreSQL
        skips the rows that it has locked, and SQLite has one writer at a time.

        Args:
            now: What is due by now is taken.
            until: How long they belong to the caller: their new `due_at`.
            limit: How many at most.
        """
        # A common table expression is computed once, where a plain subquery may be computed again
        # and lock more than the limit.
        due = (
            select(Payment.id)
            .where(Payment.due_at <= now)
            .order_by(Payment.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        claimed = await self._session.scalars(
            update(Payment)
            .where(Payment.id.in_(select(due.c.id)))
            .values(due_at=until)
            .returning(Payment)
            .execution_options(synchronize_session=False)
        )
        return claimed.all()

    async def succeed(self, payment: Payment, charge_id: str, now: datetime) -> Payment:
        """Record that a payment has been charged, whoever has it by now.

        Returns:
            The payment as it is then; unchanged if it was finished already.
        """
        return await self._change(
            payment,
            status=PaymentStatus.SUCCEEDED,
            charge_id=charge_id,
            due_at=None,
            finished_at=now,
        )

    async def fail(self, payment: Payment, reason: FailureReason, now: datetime) -> Payment:
        """Record that a payment will not be charged, unless it was taken up by somebody else.

        Args:
            payment: As it was when it was taken up.
            reason: Why not.
            now: When that was known.

        Returns:
            The payment as it is then; unchanged if it was finished already or is somebody else's.
        """
        return await self._change(
            payment,
            Payment.due_at == payment.due_at,
            status=PaymentStatus.FAILED,
            failure_reason=reason,
            due_at=None,
            finished_at=now,
        )

    async def put_down(self, payment: Payment, due_at: datetime, attempts: int) -> Payment:
        """Give a payment back, to be due again, unless it was taken up by somebody else.

        Args:
            payment: As it was when it was taken up.
            due_at: When it may be taken up again.
            attempts: How many calls for it have ended without a result by now.

        Returns:
            The payment as it is then; unchanged if it was finished already or is somebody else's.
        """
        return await self._change(
            payment, Payment.due_at == payment.due_at, due_at=due_at, attempts=attempts
        )

    async def _change(
        self, payment: Payment, *conditions: ColumnElement[bool], **values: object
    ) -> Payment:
        changed = await self._session.scalars(
            update(Payment)
            .where(Payment.id == payment.id, Payment.status == PaymentStatus.PENDING, *conditions)
            .values(**values)
            .returning(Payment)
            .execution_options(synchronize_session=False)
        )
        now = changed.one_or_none()
        return await self._session.get_one(Payment, payment.id) if now is None else now
