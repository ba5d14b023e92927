"""Payments in the database. Each method is part of the transaction whose session it is given."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from example_service.infra.database.base import UTCDateTime
from example_service.infra.database.clock import SecondsFromNow
from example_service.payments.models import (
    UNNAMED,
    FailureReason,
    Payment,
    PaymentOrder,
    PaymentStatus,
)

Moment: TypeAlias = Callable[[float], ColumnElement[datetime]]
"""Gives the moment so many seconds from now, as the database computes it."""

_Insert: TypeAlias = Callable[..., postgresql.Insert | sqlite.Insert]
_INSERTS: Final[dict[str, _Insert]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
"""The standard has no "insert unless it is there", and these two write it alike."""


class Settled(NamedTuple):
    """A payment for which a result was to be recorded.

    Attributes:
        payment: As it is now.
        is_changed: Whether this recorded it; False if it was finished already or is another's.
    """

    payment: Payment
    is_changed: bool


class Backlog(NamedTuple):
    """The payments that are pending.

    Attributes:
        pending: How many there are.
        oldest_seconds: The age of the oldest, by the database's clock; 0 if there is none.
    """

    pending: int
    oldest_seconds: float


class PaymentRepository:
    """Finds and changes payments.

    Which process may work on a payment is said by `due_at`: the one that takes it up moves it into
    the future, and settles it only if it still has the value that this gave it. Every moment is of
    the database's clock, read within the statement; the clocks of processes decide nothing.

    Args:
        session: The transaction.
        moment: The database's clock.
    """

    def __init__(self, session: AsyncSession, moment: Moment = SecondsFromNow) -> None:
        self._session = session
        self._moment = moment

    async def add(
        self,
        payment_id: UUID,
        idempotency_key: str,
        order: PaymentOrder,
        claim_seconds: float,
        *,
        caller: str = UNNAMED,
    ) -> Payment | None:
        """Add a pending payment that is taken up already, unless the caller has one with its key.

        Of several transactions that add the same key at once, one adds it; the others wait until
        that one has been committed.

        Args:
            payment_id: The new payment's.
            idempotency_key: The client's.
            order: What is to be paid.
            claim_seconds: How long the payment belongs to this process.
            caller: Who orders it.

        Returns:
            The payment; None if the caller has one with its key.
        """
        values = {
            "id": payment_id,
            "caller": caller,
            "status": PaymentStatus.PENDING,
            "attempts": 0,
            "created_at": self._moment(0.0),
            "due_at": self._moment(claim_seconds),
            **order.model_dump(),
        }
        # The second is for a key that is another caller's.
        for key in (idempotency_key, _own_key(idempotency_key, caller)):
            if await self.find_by_key(idempotency_key, caller) is not None:
                return None
            if added := await self._insert(values | {"idempotency_key": key}):
                return added
        return None

    async def _insert(self, values: dict[str, object]) -> Payment | None:
        insert = _INSERTS[self._session.get_bind().dialect.name]
        added = await self._session.scalars(
            insert(Payment).values(values).on_conflict_do_nothing().returning(Payment)
        )
        return added.one_or_none()

    async def adopt(self, idempotency_key: str, order: PaymentOrder, caller: str) -> None:
        """Give a payment without a caller to the caller that repeats its order and key.

        Such payments are from a time when callers had no names. Without this, an order that is
        repeated after the service has got keys would be paid twice.
        """
        its_own = aliased(Payment)
        has_one = exists().where(
            its_own.caller == caller,
            its_own.idempotency_key == _own_key(idempotency_key, caller),
        )
        wanted = [getattr(Payment, name) == value for name, value in order.model_dump().items()]
        await self._session.execute(
            update(Payment)
            .where(
                Payment.caller == UNNAMED,
                Payment.idempotency_key == idempotency_key,
                *wanted,
                ~has_one,
            )
            .values(caller=caller)
            .execution_options(synchronize_session=False)
        )

    async def find(self, payment_id: UUID, caller: str = UNNAMED) -> Payment | None:
        """The payment with this id, if it is one of the caller's."""
        query = select(Payment).where(Payment.id == payment_id, Payment.caller == caller)
        return (await self._session.scalars(query)).one_or_none()

    async def find_by_key(self, idempotency_key: str, caller: str = UNNAMED) -> Payment | None:
        """The caller's payment with this idempotency key."""
        own_key = _own_key(idempotency_key, caller)
        query = (
            select(Payment)
            .where(
                Payment.caller == caller, Payment.idempotency_key.in_((idempotency_key, own_key))
            )
            # It has both only if it was given the payments of a time without callers.
            .order_by(Payment.idempotency_key == idempotency_key)
            .limit(1)
        )
        return (await self._session.scalars(query)).one_or_none()

    async def newest(
        self, limit: int, older_than: Payment | None = None, caller: str = UNNAMED
    ) -> Sequence[Payment]:
        """The payments of a caller, from the newest to the oldest.

        Args:
            limit: How many at most.
            older_than: The payment after which to go on; None for the newest.
            caller: Whose.
        """
        query = (
            select(Payment)
            .where(Payment.caller == caller)
            .order_by(Payment.created_at.desc(), Payment.id.desc())
            .limit(limit)
        )
        if older_than is not None:
            last = (older_than.created_at, older_than.id)
            query = query.where(tuple_(Payment.created_at, Payment.id) < last)
        return (await self._session.scalars(query)).all()

    async def backlog(self) -> Backlog:
        """How many payments are pending, and the age of the oldest."""
        oldest = func.min(Payment.created_at, type_=UTCDateTime)
        query = select(func.count(), oldest, self._moment(0.0)).where(Payment.due_at.is_not(None))
        pending, created_at, now = (await self._session.execute(query)).one()
        return Backlog(pending, (now - created_at).total_seconds() if pending else 0.0)

    async def has_due(self) -> bool:
        """Whether a payment is due."""
        return (await self._session.scalars(self._due().limit(1))).first() is not None

    async def claim_due(
        self, claim_seconds: float, give_up_seconds: float, limit: int
    ) -> list[tuple[Payment, bool]]:
        """Take up payments that are due, those that have waited longest first.

        Those that another transaction is taking up at the same time are left to it: PostgreSQL
        skips the rows that it has locked, and SQLite has one writer at a time.

        Args:
            claim_seconds: How long they belong to the caller.
            give_up_seconds: At which age a payment is given up.
            limit: How many at most.

        Returns:
            Each payment, and whether it is given up.
        """
        # A common table expression is computed once, where a plain subquery may be computed again
        # and lock more than the limit.
        due = (
            self._due()
            .order_by(Payment.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        claimed = await self._session.execute(
            update(Payment)
            .where(Payment.id.in_(select(due.c.id)))
            .values(due_at=self._moment(claim_seconds))
            .returning(Payment, Payment.created_at <= self._moment(-give_up_seconds))
            .execution_options(synchronize_session=False)
        )
        return [(payment, bool(is_given_up)) for payment, is_given_up in claimed]

    async def succeed(self, payment: Payment, charge_id: str) -> Settled:
        """Record that a payment has been charged, even if another process has it by now."""
        return await self._change(
            payment,
            Payment.status.in_((PaymentStatus.PENDING, PaymentStatus.UNRESOLVED)),
            status=PaymentStatus.SUCCEEDED,
            charge_id=charge_id,
            due_at=None,
            finished_at=self._moment(0.0),
        )

    async def fail(self, payment: Payment, reason: FailureReason) -> Settled:
        """Record that a payment will never be charged, unless another process has taken it up.

        Args:
            payment: As it was when it was taken up.
            reason: Why not.
        """
        return await self._change(
            payment,
            *_is_held(payment),
            status=PaymentStatus.FAILED,
            failure_reason=reason,
            due_at=None,
            finished_at=self._moment(0.0),
        )

    async def leave_unresolved(self, payment: Payment) -> Settled:
        """Leave a payment to people, unless another process has taken it up.

        Args:
            payment: As it was when it was taken up.
        """
        return await self._change(
            payment, *_is_held(payment), status=PaymentStatus.UNRESOLVED, due_at=None
        )

    async def put_down(self, payment: Payment, wait_seconds: float, attempts: int) -> Payment:
        """Give a payment back, to be due again, unless another process has taken it up.

        Args:
            payment: As it was when it was taken up.
            wait_seconds: After how long it may be taken up again.
            attempts: How many calls for it have ended without a result by now.

        Returns:
            The payment as it is then; unchanged if it was finished already or is another's.
        """
        put_down = await self._change(
            payment, *_is_held(payment), due_at=self._moment(wait_seconds), attempts=attempts
        )
        return put_down.payment

    def _due(self) -> Select[UUID]:
        return select(Payment.id).where(
            Payment.status == PaymentStatus.PENDING, Payment.due_at <= self._moment(0.0)
        )

    async def _change(
        self, payment: Payment, *conditions: ColumnElement[bool], **values: object
    ) -> Settled:
        changed = await self._session.scalars(
            update(Payment)
            .where(Payment.id == payment.id, *conditions)
            .values(**values)
            .returning(Payment)
            .execution_options(synchronize_session=False)
        )
        now = changed.one_or_none()
        if now is None:
            return Settled(await self._session.get_one(Payment, payment.id), is_changed=False)
        return Settled(now, is_changed=True)


def _own_key(idempotency_key: str, caller: str) -> str:
    """What is stored as the key where another caller has used the same key before.

    The key alone is unique, as it was before there were callers. So instances of that version work
    beside this one, and an order that was sent to either is not paid again by the other.
    """
    # A client's key has no space.
    return f"{caller} {hashlib.sha256(idempotency_key.encode()).hexdigest()}"


def _is_held(payment: Payment) -> tuple[ColumnElement[bool], ...]:
    """Whether a payment still belongs to the process that took it up so."""
    return Payment.status == PaymentStatus.PENDING, Payment.due_at == payment.due_at
