"""Payments that are given up: a failed payment was never charged and never will be."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Uuid, bindparam, text

from example_service.infra.database.database import Database
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.exceptions import (
    ProviderTimeoutError,
)
from example_service.payments.models import FailureReason, PaymentStatus
from example_service.payments.service import Claim, PaymentService
from example_service.payments.settings import PaymentSettings
from tests.databases import at
from tests.docs.pages import blocks
from tests.payments.unit.fakes import (
    ATTEMPTS,
    NOT_ASKED,
    ORDER,
    FakeProvider,
    claimed,
    found,
    moments,
    outcome,
)

PENDING, SUCCEEDED, FAILED, UNRESOLVED = PaymentStatus
(DECISIONS,) = blocks("statements")
STATEMENTS = DECISIONS.text.split(";")
DAY = PaymentSettings().give_up_seconds


class TestGivingUp:
    """A payment that is a day old."""

    async def give_up(self, service: PaymentService, database: Database, clock: FakeClock) -> Claim:
        """Claim a payment that was not finished for a day."""
        claim = await claimed(database, due_at=at(DAY), attempts=300)
        clock.advance(DAY)
        (taken,) = await service.claim_due(1)
        assert taken.payment.id == claim.payment.id
        return taken

    async def test_a_moment_before_it_is_still_charged(
        self, service: PaymentService, provider: FakeProvider, database: Database, clock: FakeClock
    ) -> None:
        """The age is counted from the time of acceptance."""
        claim = await claimed(database, due_at=at(DAY - 0.001))
        clock.advance(DAY - 0.001)
        (taken,) = await service.claim_due(1)

        assert (await service.process_claim(taken)).status is SUCCEEDED
        assert provider.calls == [("charge", claim.payment.id)]

    async def test_one_that_was_charged_has_succeeded(
        self, service: PaymentService, provider: FakeProvider, database: Database, clock: FakeClock
    ) -> None:
        """The provider never cancels a charge, and only its answers were lost."""
        claim = await self.give_up(service, database, clock)
        provider.charged[claim.payment.id] = 1
        payment = await service.process_claim(claim)

        assert outcome(payment) == (SUCCEEDED, None, f"ch_{payment.id}", 300, at(DAY))
        assert provider.calls == [("cancel", payment.id)]

    async def test_one_that_was_not_charged_is_cancelled_and_has_failed(
        self,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        clock: FakeClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The provider promises never to charge it, and the end is logged."""
        payment = await service.process_claim(await self.give_up(service, database, clock))

        assert outcome(payment) == (FAILED, FailureReason.EXPIRED, None, 300, at(DAY))
        assert provider.calls == [("cancel", payment.id)]
        (record,) = [
            record for record in caplog.records if record.name.startswith("example_service.pay")
        ]
        logged = {name: record.__dict__[name] for name in ("payment_id", "attempts", "reason")}
        assert logged == {"payment_id": str(payment.id), "attempts": 300, "reason": "expired"}

    async def test_a_charge_that_arrives_after_the_end_charges_nothing(
        self, service: PaymentService, provider: FakeProvider, database: Database, clock: FakeClock
    ) -> None:
        """The charge was delayed beyond every limit."""
        payment = await service.process_claim(await self.give_up(service, database, clock))
        provider.arrive_late(payment.id)

        assert payment.status is FAILED
        assert provider.charged[payment.id] == 0

    @pytest.mark.parametrize("reason", [FailureReason.DECLINED, FailureReason.REFUSED])
    async def test_what_was_decided_before_is_the_reason(
        self,
        reason: FailureReason,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        clock: FakeClock,
    ) -> None:
        """Only the answer to the first attempt was lost."""
        claim = await self.give_up(service, database, clock)
        provider.ended[claim.payment.id] = reason

        assert outcome(await service.process_claim(claim))[:2] == (FAILED, reason)

    async def test_a_key_that_others_have_cancelled_has_failed(
        self, service: PaymentService, provider: FakeProvider
    ) -> None:
        """Its reason is not that it expired."""

        async def cancel() -> None:
            (_, payment_id) = provider.calls[-1]
            provider.ended[payment_id] = FailureReason.CANCELLED

        provider.meanwhile = cancel
        payment = await service.pay(ORDER, "k")

        assert outcome(payment)[:2] == (FAILED, FailureReason.CANCELLED)

    @pytest.mark.parametrize("fault", [*ATTEMPTS, *NOT_ASKED], ids=repr)
    async def test_nothing_has_failed_before_the_provider_has_confirmed(
        self,
        fault: Exception,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        clock: FakeClock,
    ) -> None:
        """However old it is, a payment stays pending until the provider decides."""
        await claimed(database, due_at=at(365 * DAY), attempts=300)
        clock.advance(365 * DAY)
        provider.fault = fault
        (taken,) = await service.claim_due(1)
        payment = await service.process_claim(taken)

        assert payment.status is PENDING
        provider.fault = None
        provider.arrive_late(payment.id)
        clock.advance(400.0)
        (taken,) = await service.claim_due(1)
        assert (await service.process_claim(taken)).status is SUCCEEDED

    async def test_a_cancellation_without_an_answer_is_logged(
        self,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        clock: FakeClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Operators can see that a payment is old, and why it is still pending."""
        provider.fault = ProviderTimeoutError("slow")
        payment = await service.process_claim(await self.give_up(service, database, clock))

        (record,) = [
            record for record in caplog.records if record.name.startswith("example_service.pay")
        ]
        assert record.message == "A payment that was given up is not cancelled yet"
        logged = {name: record.__dict__[name] for name in ("payment_id", "attempts", "reason")}
        assert logged == {
            "payment_id": str(payment.id),
            "attempts": 301,
            "reason": "ProviderTimeoutError",
        }


class TestProviderThatCannotCancel:
    """With `PAYMENTS__PROVIDER_CAN_CANCEL=false`."""

    @pytest.fixture
    def service(
        self, database: Database, provider: FakeProvider, clock: FakeClock
    ) -> PaymentService:
        """A service whose provider cannot cancel."""
        return PaymentService(
            database,
            provider,
            PaymentSettings(provider_can_cancel=False),
            moment=moments(clock),
            steady_clock=clock,
        )

    @pytest.fixture
    async def claim(self, service: PaymentService, database: Database, clock: FakeClock) -> Claim:
        """The claim of a payment that is to be given up."""
        await claimed(database, due_at=at(DAY), attempts=300)
        clock.advance(DAY)
        (taken,) = await service.claim_due(1)
        return taken

    async def test_what_it_does_not_know_is_left_to_people(
        self,
        service: PaymentService,
        provider: FakeProvider,
        claim: Claim,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A charge may still arrive, so the payment is unresolved and never claimed again."""
        payment = await service.process_claim(claim)

        assert outcome(payment) == (UNRESOLVED, None, None, 300, None)
        assert payment.due_at is None
        assert provider.calls == [("find_charge", payment.id)]
        assert await service.claim_due(1) == []
        (record,) = [
            record for record in caplog.records if record.name.startswith("example_service.pay")
        ]
        assert (record.levelname, record.__dict__["payment_id"]) == ("ERROR", str(payment.id))

    async def test_what_it_has_charged_has_succeeded(
        self, service: PaymentService, provider: FakeProvider, claim: Claim
    ) -> None:
        """Only the answers were lost."""
        provider.charged[claim.payment.id] = 1

        assert (await service.process_claim(claim)).status is SUCCEEDED

    @pytest.mark.parametrize(
        "reason", [FailureReason.DECLINED, FailureReason.REFUSED, FailureReason.CANCELLED]
    )
    async def test_what_it_has_decided_has_failed(
        self, reason: FailureReason, service: PaymentService, provider: FakeProvider, claim: Claim
    ) -> None:
        """Each is final. A cancellation was not ours, so the payment has not expired."""
        provider.ended[claim.payment.id] = reason

        assert outcome(await service.process_claim(claim))[:2] == (FAILED, reason)

    @pytest.mark.parametrize("fault", [*ATTEMPTS, *NOT_ASKED], ids=repr)
    async def test_without_an_answer_it_stays_pending(
        self, fault: Exception, service: PaymentService, provider: FakeProvider, claim: Claim
    ) -> None:
        """Only an answer of the provider makes it unresolved."""
        provider.fault = fault

        assert (await service.process_claim(claim)).status is PENDING

    @pytest.mark.parametrize(
        ("number", "status"), [(0, UNRESOLVED), (1, SUCCEEDED), (2, FAILED)], ids=str
    )
    async def test_people_decide_with_the_statements_of_the_docs(
        self,
        *,
        number: int,
        status: PaymentStatus,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        claim: Claim,
        clock: FakeClock,
    ) -> None:
        """They list payments, have one looked up again, or record that it was never charged."""
        payment = await service.process_claim(claim)
        provider.charged[payment.id] = 1
        clock.now = datetime.now(UTC).timestamp() + 60.0
        statement = text(STATEMENTS[number])
        if number:
            statement = statement.bindparams(bindparam("id", payment.id, Uuid))
        async with database.transaction() as session:
            result = await session.execute(statement)
            assert number or len(result.all()) == 1
        for again in await service.claim_due(1):
            await service.process_claim(again)

        assert (await found(database, payment)).status is status

    async def test_a_charge_that_is_heard_of_later_counts(
        self, service: PaymentService, provider: FakeProvider, claim: Claim, clock: FakeClock
    ) -> None:
        """An earlier process may still wait for the answer to its charge."""
        slow = Claim(claim.payment, ends_at=clock.now + 1.0)
        unresolved = await service.process_claim(claim)
        assert unresolved.status is UNRESOLVED

        now = await service.process_claim(slow)

        assert (now.status, provider.charged[now.id]) == (SUCCEEDED, 1)
