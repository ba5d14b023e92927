"""Payments in the database: one for each key, one holder at a time, final once finished."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql

from example_service.core.settings import Settings
from example_service.infra.database.clock import SecondsFromNow
from example_service.infra.database.database import Database, open_database
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.models import Payment, PaymentOrder, PaymentStatus
from example_service.payments.repository import PaymentRepository
from tests.databases import NOON, at
from tests.payments.unit.fakes import ORDER, found, moments, outcome, pending_payment, stored
from tests.payments.unit.transactions import DAY, claim, within


async def add(
    payments: PaymentRepository, key: str = "k", order: PaymentOrder = ORDER
) -> Payment | None:
    """Add a payment with a claim of half a minute."""
    return await payments.add(uuid4(), key, order, 30.0)


class TestAdd:
    """One payment for each key."""

    async def test_a_new_key_is_added(self, database: Database) -> None:
        """The payment is found by its ID and its key, and its creator has claimed it."""
        payment_id = uuid4()
        added = await within(database, lambda all_: all_.add(payment_id, "k", ORDER, 30.0))

        by_id = await within(database, lambda payments: payments.find(payment_id))
        by_key = await within(database, lambda payments: payments.find_by_key("k"))
        for payment in (added, by_id, by_key):
            assert payment is not None
            assert (payment.id, payment.idempotency_key, payment.order) == (payment_id, "k", ORDER)
            assert (payment.created_at, payment.due_at) == (NOON, at(30))
            assert outcome(payment)[:4] == (PaymentStatus.PENDING, None, None, 0)

    async def test_a_key_that_is_there_changes_nothing(self, database: Database) -> None:
        """The first payment stays unchanged."""
        first = await within(database, add)
        assert first is not None
        another = ORDER.model_copy(update={"amount": 1})
        assert await within(database, lambda payments: add(payments, order=another)) is None

        assert (await found(database, first)).amount == ORDER.amount

    async def test_of_many_at_once_one_is_added(self, database: Database, other: Database) -> None:
        """All others see it at once, in the same transaction."""

        async def add_and_find(payments: PaymentRepository) -> tuple[bool, UUID]:
            added = await add(payments)
            there = await payments.find_by_key("k")
            assert there is not None
            return added is not None, there.id

        outcomes = await asyncio.gather(
            *(within(to, add_and_find) for to in (database, other) for _ in range(10))
        )

        assert sorted(is_new for is_new, _ in outcomes) == [False] * 19 + [True]
        assert len({payment_id for _, payment_id in outcomes}) == 1

    async def test_a_key_is_free_again_after_a_rollback(self, database: Database) -> None:
        """An uncommitted payment does not exist."""
        with pytest.raises(ZeroDivisionError):
            await within(database, add_and_fail)

        assert await within(database, lambda payments: payments.find_by_key("k")) is None
        assert await within(database, add) is not None

    async def test_what_is_not_there_is_not_found(self, database: Database) -> None:
        """The result is None and not an error."""
        unknown = pending_payment()
        assert await within(database, lambda payments: payments.find(unknown.id)) is None
        assert await within(database, lambda payments: payments.find_by_key("k")) is None


async def add_and_fail(payments: PaymentRepository) -> None:
    """Add a payment in a transaction that fails."""
    assert await add(payments)
    raise ZeroDivisionError


class TestNewest:
    """Pages from the newest to the oldest."""

    async def test_payments_come_newest_first(self, database: Database) -> None:
        """Payments of the same time are ordered by ID, so that the order is total."""
        same = [UUID(int=number) for number in (3, 1, 2)]
        oldest, *middle = await stored(
            database,
            pending_payment(created_at=at(-1)),
            *(pending_payment(id=payment_id, created_at=NOON) for payment_id in same),
        )
        (newest,) = await stored(database, pending_payment(created_at=at(1)))

        payments = await within(database, lambda payments: payments.newest(10))

        assert [payment.id for payment in payments] == [newest, *sorted(middle)[::-1], oldest]

    async def test_pages_do_not_move_when_payments_arrive(self, database: Database) -> None:
        """Each payment that existed at the start is on one page, and no new one."""
        ids = await stored(database, *(pending_payment(created_at=at(n // 2)) for n in range(7)))
        seen: list[UUID] = []
        last: Payment | None = None
        for number in range(4):
            async with database.transaction() as session:
                page = await PaymentRepository(session).newest(2, older_than=last)
            seen += [payment.id for payment in page]
            last = page[-1]
            await stored(database, pending_payment(created_at=at(100 + number)))

        assert sorted(seen) == sorted(ids)
        assert await within(database, lambda all_: all_.newest(2, older_than=last)) == []


class TestClaim:
    """Claiming payments."""

    async def test_what_is_due_is_taken_up(self, database: Database) -> None:
        """Payments that are due later, finished or already claimed are skipped."""
        due = [pending_payment(due_at=moment) for moment in (at(-5), NOON)]
        finished = {"status": PaymentStatus.SUCCEEDED, "charge_id": "ch_1", "due_at": None}
        await stored(database, *due, pending_payment(due_at=at(0.001)), pending_payment(**finished))

        claimed = await claim(database)

        assert {payment.id for payment in claimed} == {payment.id for payment in due}
        assert {payment.due_at for payment in claimed} == {at(30)}
        assert [(await found(database, payment)).due_at for payment in due] == [at(30)] * 2
        assert await claim(database) == []

    async def test_whether_something_is_due_can_be_asked(self, database: Database) -> None:
        """Asking does not claim a payment."""
        await stored(database, pending_payment(due_at=at(5)))
        asked = [await within(database, lambda all_: all_.has_due(), now) for now in (4.9, 5, 5)]

        assert asked == [False, True, True]
        await claim(database, now=5)
        assert not await within(database, lambda all_: all_.has_due(), 5)

    async def test_those_that_have_waited_longest_come_first(self, database: Database) -> None:
        """No more payments than the limit are claimed."""
        ids = await stored(
            database, *(pending_payment(due_at=at(-wait)) for wait in (1, 5, 3, 4, 2))
        )

        batches = [{payment.id for payment in await claim(database, 2)} for _ in range(3)]

        assert batches == [{ids[1], ids[3]}, {ids[2], ids[4]}, {ids[0]}]

    async def test_a_claim_that_has_run_out_can_be_taken_over(self, database: Database) -> None:
        """The payments of a killed process are not lost."""
        await stored(database, pending_payment(due_at=NOON))
        assert len(await claim(database)) == 1

        again = await claim(database, now=30.0)

        assert [payment.due_at for payment in again] == [at(60)]

    async def test_no_payment_is_taken_up_twice(self, database: Database, other: Database) -> None:
        """Simultaneous claims get different payments, and together all of them."""
        ids = await stored(database, *(pending_payment(due_at=at(-n)) for n in range(20)))

        batches = await asyncio.gather(
            *(claim(store, 3) for store in (database, other) for _ in range(5))
        )

        taken = [payment.id for batch in batches for payment in batch]
        assert all(len(batch) <= 3 for batch in batches)
        assert len(taken) == len(set(taken))
        rest = [payment.id for payment in await claim(database, 20)]
        assert sorted(taken + rest) == sorted(ids)

    @pytest.mark.integration
    async def test_what_another_is_taking_up_is_skipped_without_waiting(
        self, postgres_settings: Settings
    ) -> None:
        """While one transaction is open, another finds nothing left."""
        async with (
            open_database(postgres_settings) as one,
            open_database(postgres_settings) as other,
        ):
            first, second, third = await stored(
                one, *(pending_payment(due_at=at(n)) for n in (-3, -2, -1))
            )
            async with one.transaction() as session:
                payments = PaymentRepository(session, moments(FakeClock(NOON.timestamp())))
                taken = [payment for payment, _ in await payments.claim_due(30.0, DAY, 2)]
                rest = await claim(other, 2)
                nothing = await claim(other, 2)

            assert {payment.id for payment in taken} == {first, second}
            assert [payment.id for payment in rest] == [third]
            assert nothing == []

    @pytest.mark.parametrize(
        ("age", "is_given_up"), [(0.0, False), (DAY - 0.001, False), (DAY, True), (9 * DAY, True)]
    )
    async def test_the_database_says_which_payments_are_given_up(
        self, age: float, is_given_up: bool, database: Database
    ) -> None:
        """Their age is measured by its clock."""
        await stored(database, pending_payment(due_at=NOON))
        claimed = await within(database, lambda all_: all_.claim_due(30.0, DAY, 10), age)

        assert [given_up for _, given_up in claimed] == [is_given_up]

    async def test_what_a_newer_version_has_due_is_left_to_it(self, database: Database) -> None:
        """This version cannot know what to do with it."""
        payment = pending_payment(due_at=NOON)
        await stored(database, payment)
        async with database.transaction() as session:
            drop = "DROP CONSTRAINT ck_payments_pending_is_due"
            if session.get_bind().dialect.name == "postgresql":
                await session.execute(text(f"ALTER TABLE payments {drop}"))
            else:
                await session.execute(text("PRAGMA ignore_check_constraints = ON"))
            await session.execute(text("UPDATE payments SET status = 'on hold'"))
            payments = PaymentRepository(session, moments(FakeClock(NOON.timestamp())))
            assert await payments.claim_due(30.0, DAY, 10) == []
            # Other tests need the constraint.
            await session.rollback()


class TestDatabaseClock:
    """The real clock of the database, independent of the process's clock."""

    async def test_moments_are_those_of_the_database(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Times are computed within the statement, not by this process."""
        monkeypatch.setattr("time.time", lambda: 0.0)
        async with database.transaction() as session:
            (now,) = (await session.execute(select(SecondsFromNow(0.0)))).one()
        async with database.transaction() as session:
            added = await PaymentRepository(session).add(uuid4(), "k", ORDER, 30.25)
        assert added is not None

        assert timedelta() <= added.created_at - now < timedelta(seconds=10)
        assert added.due_at == added.created_at + timedelta(seconds=30.25)

    @pytest.mark.parametrize("seconds", [0.0, 1e-5, -1e-5, 0.5, -0.5, 31_536_000.0, -31_536_000.0])
    async def test_every_distance_is_a_moment(self, seconds: float, database: Database) -> None:
        """This covers tiny intervals and years, in the past and in the future."""
        async with database.transaction() as session:
            now, then = (
                await session.execute(select(SecondsFromNow(0.0), SecondsFromNow(seconds)))
            ).one()

        assert abs((then - now).total_seconds() - seconds) < 0.002

    async def test_what_is_due_is_taken_up_by_it(self, database: Database) -> None:
        """A payment put down for a while is not due; one put down for no time is."""
        async with database.transaction() as session:
            payment = await PaymentRepository(session).add(uuid4(), "k", ORDER, 60.0)
        assert payment is not None

        async def claimed(wait_seconds: float, give_up_seconds: float) -> list[bool]:
            async with database.transaction() as session:
                payments = PaymentRepository(session)
                there = await payments.find(payment.id)
                assert there is not None
                await payments.release(there, wait_seconds, 0)
            async with database.transaction() as session:
                due = await PaymentRepository(session).claim_due(60.0, give_up_seconds, 10)
            return [is_given_up for _, is_given_up in due]

        assert await claimed(60.0, DAY) == []
        assert await claimed(-0.5, DAY) == [False]
        assert await claimed(-86_400.5, 0.0) == [True]

    def test_the_due_index_is_used(self) -> None:
        """PostgreSQL's `clock_timestamp()` would read every pending payment."""
        moment = str(SecondsFromNow(1.0).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        assert "statement_timestamp()" in moment


class TestBacklog:
    """The pending payments as monitoring sees them."""

    async def test_nothing_is_pending_at_first(self, database: Database) -> None:
        """An empty table has no oldest payment."""
        assert await within(database, PaymentRepository.backlog) == (0, 0.0)

    async def test_only_pending_payments_count(self, database: Database) -> None:
        """The age is that of the oldest, by the clock of the database."""
        finished = pending_payment(created_at=at(-300))
        others = [pending_payment(created_at=at(seconds)) for seconds in (-20, -10)]
        await stored(database, finished, *others)
        await within(database, lambda all_: all_.succeed(finished, "ch_1"))

        assert await within(database, PaymentRepository.backlog, 5.0) == (2, 25.0)

    async def test_the_clock_of_the_server_gives_the_age(self, database: Database) -> None:
        """This uses the real clock of each kind of database."""
        async with database.transaction() as session:
            payments = PaymentRepository(session)
            await add(payments)
            pending, age = await payments.backlog()

        assert pending == 1
        assert 0.0 <= age < 60.0
