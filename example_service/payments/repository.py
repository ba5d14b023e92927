"""Reads and writes payments in the database, as part of the caller's transaction."""

import hashlib
import math
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
"""Returns an SQL expression for the time some seconds from now, on the database's clock."""

_Insert: TypeAlias = Callable[..., postgresql.Insert | sqlite.Insert]
_INSERTS: Final[dict[str, _Insert]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
"""Standard SQL has no `ON CONFLICT DO NOTHING`, but both dialects support it with the same API."""


class Settled(NamedTuple):
    """The result of an attempt to change a payment.

    Attributes:
        payment: The current payment.
        is_changed: Whether it was changed. False if it was already finished or another process has
            claimed it.
    """

    payment: Payment
    is_changed: bool


class Backlog(NamedTuple):
    """The pending payments.

    Attributes:
        pending: The number of pending payments.
        oldest_seconds: The age of the oldest in seconds on the database's clock. 0 if there is
            none.
    """

    pending: int
    oldest_seconds: float


class PaymentRepository:
    """Finds and changes payments.

    A process claims a payment by moving `due_at` into the future, and changes it later only if
    `due_at` still has that value. All times come from the database's clock, read within the
    statement, so the clocks of the processes do not matter.

    Args:
        session: The session of the transaction.
        moment: The database's clock.
        max_wait_seconds: More than any claim and any wait between two attempts. A payment that
            would have to wait for longer is due, because the database's clock was set back.
    """

    def __init__(
        self,
        session: AsyncSession,
        moment: Moment = SecondsFromNow,
        *,
        max_wait_seconds: float = math.inf,
    ) -> None:
        self._session = session
        self._moment = moment
        self._max_wait_seconds = max_wait_seconds

    async def add(
        self,
        payment_id: UUID,
        idempotency_key: str,
        order: PaymentOrder,
        claim_seconds: float,
        *,
        caller: str = UNNAMED,
    ) -> Payment | None:
        """Add and claim a pending payment, unless the caller has one with the same key.

        If several transactions add the same key at the same time, one of them adds it and the
        others wait for its commit.

        Args:
            payment_id: The id of the new payment.
            idempotency_key: The client's key.
            order: The order.
            claim_seconds: How long the claim of this process lasts.
            caller: The name of the caller.

        Returns:
            The payment. None if the caller already has one with this key.
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
        # The second key is used if another caller has the first.
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
        """Assign a payment without a caller to the caller that repeats its order and key.

        Such payments were made before callers had names. Without this, an order that is repeated
        after `API__KEYS` was set would be paid twice.
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
        """Return the payment with this id, if it belongs to the caller."""
        query = select(Payment).where(Payment.id == payment_id, Payment.caller == caller)
        return (await self._session.scalars(query)).one_or_none()

    async def find_by_key(self, idempotency_key: str, caller: str = UNNAMED) -> Payment | None:
        """Return the caller's payment with this idempotency key, if any."""
        own_key = _own_key(idempotency_key, caller)
        query = (
            select(Payment)
            .where(
                Payment.caller == caller, Payment.idempotency_key.in_((idempotency_key, own_key))
            )
            # There are only two if the caller has adopted a payment from before callers had names.
            .order_by(Payment.idempotency_key == idempotency_key)
            .limit(1)
        )
        return (await self._session.scalars(query)).one_or_none()

    async def newest(
        self, limit: int, older_than: Payment | None = None, caller: str = UNNAMED
    ) -> Sequence[Payment]:
        """Return payments of a caller, newest first.

        Args:
            limit: The maximum number of payments.
            older_than: The last payment of the previous page. None for the first page.
            caller: The name of the caller.
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
        """Return the number of pending payments and the age of the oldest."""
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
        """Claim payments that are due, those that have waited longest first.

        Concurrent transactions never claim the same payment: PostgreSQL skips locked rows, and
        SQLite has a single writer.

        Args:
            claim_seconds: How long the claims of this process last.
            give_up_seconds: The age in seconds at which a payment is given up.
            limit: The maximum number of payments.

        Returns:
            The payments, each with whether it is given up.
        """
        # A CTE is evaluated once. A plain subquery may be evaluated again and lock more rows than
        # the limit.
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
        """Record that a payment was charged, even if another process has claimed it by now."""
        return await self._change(
            payment,
            Payment.status.in_((PaymentStatus.PENDING, PaymentStatus.UNRESOLVED)),
            status=PaymentStatus.SUCCEEDED,
            charge_id=charge_id,
            due_at=None,
            finished_at=self._moment(0.0),
        )

    async def fail(self, payment: Payment, reason: FailureReason) -> Settled:
        """Record that a payment has failed, unless another process has claimed it.

        Args:
            payment: The payment as it was claimed.
            reason: Why it failed.
        """
        return await self._change(
            payment,
            *_still_claimed(payment),
            status=PaymentStatus.FAILED,
            failure_reason=reason,
            due_at=None,
            finished_at=self._moment(0.0),
        )

    async def leave_unresolved(self, payment: Payment) -> Settled:
        """Mark a payment as unresolved, unless another process has claimed it.

        Args:
            payment: The payment as it was claimed.
        """
        return await self._change(
            payment, *_still_claimed(payment), status=PaymentStatus.UNRESOLVED, due_at=None
        )

    async def release(self, payment: Payment, wait_seconds: float, attempts: int) -> Payment:
        """Release the claim of a payment, unless another process has claimed it.

        Args:
            payment: The payment as it was claimed.
            wait_seconds: The seconds until it is due again.
            attempts: The number of calls for it that have ended without a result.

        Returns:
            The current payment. It is not changed if it was already finished or another process has
            claimed it.
        """
        release = await self._change(
            payment, *_still_claimed(payment), due_at=self._moment(wait_seconds), attempts=attempts
        )
        return release.payment

    def _due(self) -> Select[UUID]:
        is_due = Payment.due_at <= self._moment(0.0)
        if self._max_wait_seconds < math.inf:
            is_due |= Payment.due_at > self._moment(self._max_wait_seconds)
        return select(Payment.id).where(Payment.status == PaymentStatus.PENDING, is_due)

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
    """Return the key to store if another caller has used the same key before.

    The column is still unique by itself, as in the version without callers. Instances of both
    versions can therefore run side by side without paying an order twice.
    """
    # The space prevents collisions, because a client's key cannot contain one.
    return f"{caller} {hashlib.sha256(idempotency_key.encode()).hexdigest()}"


def _still_claimed(payment: Payment) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a claim is still valid."""
    return Payment.status == PaymentStatus.PENDING, Payment.due_at == payment.due_at
