"""Which worker processes a payment, and until when."""

import pytest

from example_service.infra.database.database import Database
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.exceptions import ProviderTimeoutError
from example_service.payments.models import FailureReason, PaymentStatus
from example_service.payments.repository import PaymentRepository
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings
from tests.databases import NOON, at
from tests.payments.unit.fakes import FakeProvider, claimed, moments, outcome

PENDING, SUCCEEDED, FAILED, _ = PaymentStatus
DAY = PaymentSettings().give_up_seconds


class TestClaimDue:
    """Claiming due payments."""

    async def test_they_belong_to_the_worker_that_claims_them(
        self, service: PaymentService, database: Database, clock: FakeClock
    ) -> None:
        """They are claimed for `PAYMENTS__CLAIM_SECONDS`, up to the limit."""
        for wait in (1, 2, 3):
            await claimed(database, due_at=at(-wait))

        batches = [await service.claim_due(2) for _ in range(3)]
        clock.advance(29.9)
        batches.append(await service.claim_due(2))
        clock.advance(0.1)
        batches.append(await service.claim_due(10))

        assert [len(batch) for batch in batches] == [2, 1, 0, 0, 3]
        assert {claim.payment.due_at for claim in batches[0]} == {at(30)}
        assert {claim.payment.due_at for claim in batches[-1]} == {at(60)}

    @pytest.mark.parametrize("late", [30.0, 30.1, 3600.0])
    async def test_nothing_is_done_after_the_claim(
        self,
        late: float,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        clock: FakeClock,
    ) -> None:
        """A process that was suspended for that long leaves the payment to others."""
        claim = await claimed(database)
        clock.advance(late)

        assert await service.process_claim(claim) is claim.payment
        assert provider.calls == []

    @pytest.mark.parametrize("word", ["charged", "declined", "failing"])
    async def test_an_answer_that_comes_too_late_does_no_harm(
        self,
        word: str,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        clock: FakeClock,
    ) -> None:
        """Another process holds the payment, so only a charge is still recorded."""
        claim = await claimed(database)
        payment = claim.payment

        async def be_overtaken() -> None:
            clock.advance(31.0)
            (holder,) = await service.claim_due(1)
            assert holder.payment.due_at == at(61)

        provider.meanwhile = be_overtaken
        provider.refuses_with = FailureReason.DECLINED if word == "declined" else None
        provider.fault = ProviderTimeoutError("slow") if word == "failing" else None
        now = await service.process_claim(claim)

        charged = (SUCCEEDED, None, f"ch_{payment.id}", 0, at(31))
        assert outcome(now) == (charged if word == "charged" else (PENDING, None, None, 0, None))
        assert now.due_at == (None if word == "charged" else at(61))

    @pytest.mark.parametrize("recorded", ["cancelled", "charged"])
    async def test_a_charge_that_contradicts_the_outcome_is_an_error(
        self,
        *,
        recorded: str,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        clock: FakeClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A provider that breaks its promise is noticed, and the outcome stays as it is."""
        claim = await claimed(database)

        async def be_overtaken() -> None:
            async with database.transaction() as session:
                payments = PaymentRepository(session, moments(clock))
                if recorded == "charged":
                    await payments.succeed(claim.payment, "ch_first")
                else:
                    await payments.fail(claim.payment, FailureReason.EXPIRED)

        provider.meanwhile = be_overtaken
        now = await service.process_claim(claim)

        kept = {
            "cancelled": (FAILED, FailureReason.EXPIRED, None, 0, NOON),
            "charged": (SUCCEEDED, None, "ch_first", 0, NOON),
        }
        assert outcome(now) == kept[recorded]
        assert provider.charged == {now.id: 1}
        (record,) = [record for record in caplog.records if "contradicts" in record.message]
        assert (record.levelname, record.__dict__["payment_id"]) == ("ERROR", str(now.id))

    @pytest.mark.parametrize("attempts", [0, 1, 100])
    @pytest.mark.parametrize("does_look", [False, True])
    async def test_no_payment_waits_until_a_wrong_clock_is_right(
        self,
        *,
        attempts: int,
        does_look: bool,
        service: PaymentService,
        database: Database,
        clock: FakeClock,
        provider: FakeProvider,
    ) -> None:
        """A payment is due if the database's clock was set back after it was claimed or released.

        While the circuit is open, a worker only looks for payments that are due.
        """
        claim = await claimed(database, attempts=attempts)
        if attempts:
            provider.fault = ProviderTimeoutError("slow")
            await service.process_claim(claim)
        assert not await service.has_due()
        clock.now -= 2 * DAY

        if does_look:
            assert await service.has_due()
        (again,) = await service.claim_due(1)

        assert again.payment.id == claim.payment.id
        assert not await service.has_due()
