"""Recording the result of a claim, and what may change after it."""

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import NoResultFound

from example_service.infra.database.database import Database
from example_service.payments.models import FailureReason, Payment, PaymentStatus
from tests.databases import NOON, at
from tests.payments.unit.fakes import found, outcome, pending_payment, stored
from tests.payments.unit.transactions import claim, settled, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from example_service.payments.repository import PaymentRepository, Settled


def settlement(payment: Payment) -> tuple[object, ...]:
    """The fields of a payment that may change."""
    return (*outcome(payment), payment.due_at)


class TestSettling:
    """Recording the result of a claim."""

    async def claimed(self, database: Database) -> tuple[Payment, Payment]:
        """A payment with its expired claim, and with the later claim of its present holder."""
        await stored(database, pending_payment(due_at=NOON))
        (earlier,) = await claim(database)
        (holder,) = await claim(database, now=31.0)
        assert (earlier.due_at, holder.due_at) == (at(30), at(61))
        return earlier, holder

    async def test_a_success_is_recorded(self, database: Database) -> None:
        """It is final, and the claim ends."""
        _, holder = await self.claimed(database)

        now = await settled(database, lambda all_: all_.succeed(holder, "ch_1"), 32.0)

        expected = (PaymentStatus.SUCCEEDED, None, "ch_1", 0, at(32), None)
        assert settlement(now) == expected
        assert settlement(await found(database, holder)) == expected

    async def test_a_success_counts_even_after_the_claim(self, database: Database) -> None:
        """The money has moved, whichever process has the claim now."""
        earlier, holder = await self.claimed(database)

        now = await settled(database, lambda all_: all_.succeed(earlier, "ch_1"), 32.0)

        assert (now.status, now.charge_id) == (PaymentStatus.SUCCEEDED, "ch_1")
        assert (await found(database, holder)).status is PaymentStatus.SUCCEEDED

    async def test_the_holder_records_a_failure(self, database: Database) -> None:
        """The failure has a reason."""
        _, holder = await self.claimed(database)

        now = await settled(database, lambda all_: all_.fail(holder, FailureReason.DECLINED), 32.0)

        expected = (PaymentStatus.FAILED, FailureReason.DECLINED, None, 0, at(32), None)
        assert settlement(now) == expected
        assert settlement(await found(database, holder)) == expected

    async def test_no_other_worker_records_a_failure(self, database: Database) -> None:
        """The present holder may be charging it at this moment."""
        earlier, holder = await self.claimed(database)

        now = await settled(database, lambda all_: all_.fail(earlier, FailureReason.EXPIRED), 32.0)

        assert settlement(now) == settlement(holder)
        assert settlement(await found(database, holder)) == settlement(holder)

    async def test_its_holder_releases_a_payment(self, database: Database) -> None:
        """It is due again at the given time."""
        _, holder = await self.claimed(database)

        now = await within(database, lambda all_: all_.release(holder, 8.0, 3), 32.0)

        expected = (PaymentStatus.PENDING, None, None, 3, None, at(40))
        assert settlement(now) == expected
        assert settlement(await found(database, holder)) == expected

    async def test_no_other_worker_releases_a_payment(self, database: Database) -> None:
        """It stays with its holder."""
        earlier, holder = await self.claimed(database)

        now = await within(database, lambda all_: all_.release(earlier, 8.0, 3), 32.0)

        assert settlement(now) == settlement(holder)
        assert settlement(await found(database, holder)) == settlement(holder)

    async def test_the_holder_leaves_a_payment_unresolved(self, database: Database) -> None:
        """It is never claimed again, and it is not finished."""
        _, holder = await self.claimed(database)

        now = await settled(database, lambda all_: all_.leave_unresolved(holder), 32.0)

        expected = (PaymentStatus.UNRESOLVED, None, None, 0, None, None)
        assert settlement(now) == settlement(await found(database, holder)) == expected
        assert await claim(database, now=1000.0) == []

    async def test_no_other_worker_leaves_a_payment_unresolved(self, database: Database) -> None:
        """It stays with its holder."""
        earlier, holder = await self.claimed(database)

        now = await settled(database, lambda all_: all_.leave_unresolved(earlier), 32.0)

        assert settlement(now) == settlement(await found(database, holder)) == settlement(holder)

    async def test_an_unresolved_payment_may_only_succeed(self, database: Database) -> None:
        """A charge may still be confirmed; operators decide the rest."""
        _, holder = await self.claimed(database)
        unresolved = settlement(await settled(database, lambda all_: all_.leave_unresolved(holder)))
        failed = await settled(database, lambda all_: all_.fail(holder, FailureReason.DECLINED))
        release = await within(database, lambda all_: all_.release(holder, 8.0, 3))
        assert settlement(failed) == settlement(release) == unresolved

        now = await settled(database, lambda all_: all_.succeed(holder, "ch_1"), 32.0)

        assert settlement(now) == (PaymentStatus.SUCCEEDED, None, "ch_1", 0, at(32), None)

    @pytest.mark.parametrize("first", ["succeed", "fail"])
    async def test_a_finished_payment_never_changes(self, first: str, database: Database) -> None:
        """Later results are ignored, and its present state is returned."""
        _, holder = await self.claimed(database)
        settle: dict[str, Callable[[PaymentRepository], Awaitable[Settled]]] = {
            "succeed": lambda all_: all_.succeed(holder, "ch_1"),
            "fail": lambda all_: all_.fail(holder, FailureReason.DECLINED),
            "succeed again": lambda all_: all_.succeed(holder, "ch_2"),
            "fail again": lambda all_: all_.fail(holder, FailureReason.EXPIRED),
            "leave unresolved": lambda all_: all_.leave_unresolved(holder),
        }
        recorded = await within(database, settle[first])
        finished = settlement(recorded.payment)

        later = [await within(database, settle[name]) for name in list(settle)[2:]]
        release = await within(database, lambda all_: all_.release(holder, 8.0, 3))

        assert recorded.is_changed
        assert [settlement.is_changed for settlement in later] == [False] * 3
        assert [settlement(again.payment) for again in later] == [finished] * 3
        assert settlement(release) == finished
        assert settlement(await found(database, holder)) == finished

    async def test_a_payment_that_is_not_there_cannot_be_settled(self, database: Database) -> None:
        """Payments are never deleted, so this is a bug and raises."""
        with pytest.raises(NoResultFound):
            await settled(database, lambda all_: all_.succeed(pending_payment(), "ch_1"))
