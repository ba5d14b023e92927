"""Payments from order to charge: none is lost, and none is charged twice."""

import asyncio
from typing import Any

import pytest

from example_service.infra.database.database import Database, database_breaker
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.exceptions import (
    IdempotencyKeyReusedError,
    InvalidProviderAnswerError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from example_service.payments.models import FailureReason, Payment, PaymentStatus
from example_service.payments.repository import PaymentRepository
from example_service.payments.service import PaymentService, steady_seconds
from tests.databases import NOON, at
from tests.payments.unit.fakes import (
    ATTEMPTS,
    NOT_ASKED,
    ORDER,
    FakeProvider,
    claimed,
    found,
    outcome,
)

PENDING, SUCCEEDED, FAILED, _ = PaymentStatus


def wait_of(payment: Payment) -> float:
    """Seconds from noon until a payment is due."""
    assert payment.due_at is not None
    return (payment.due_at - NOON).total_seconds()


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Remove the jitter, and return the ranges from which it would have been drawn."""
    bounds = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return 1.0

    monkeypatch.setattr("example_service.payments.service.random.uniform", uniform)
    return bounds


class TestPay:
    """A new order."""

    async def test_an_order_is_charged_at_once(
        self, service: PaymentService, provider: FakeProvider, other: Database
    ) -> None:
        """The payment's ID is the provider's idempotency key, and the charge ID is stored."""
        payment = await service.pay(ORDER, "k")

        expected = (SUCCEEDED, None, f"ch_{payment.id}", 0, NOON)
        assert (outcome(payment), payment.order, payment.created_at) == (expected, ORDER, NOON)
        assert outcome(await found(other, payment)) == expected
        assert provider.calls == [("charge", payment.id)]

    async def test_it_is_stored_before_the_provider_is_asked(
        self,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        other: Database,
    ) -> None:
        """Other processes see it with a claim, and no transaction is open during the call."""
        seen: list[Any] = []

        async def look() -> None:
            seen.append(database.engine.pool.checkedout())  # type: ignore[attr-defined]
            async with other.transaction() as session:
                payment = await PaymentRepository(session).find_by_key("k")
            assert payment is not None
            seen.extend((payment.status, payment.due_at))

        provider.meanwhile = look
        await service.pay(ORDER, "k")

        assert seen == [0, PENDING, at(30)]

    async def test_a_decline_is_final(
        self, service: PaymentService, provider: FakeProvider, other: Database
    ) -> None:
        """Nothing was charged, and there is no further attempt."""
        provider.refuses_with = FailureReason.DECLINED
        payment = await service.pay(ORDER, "k")

        expected = (FAILED, FailureReason.DECLINED, None, 0, NOON)
        assert outcome(payment) == expected
        assert outcome(await found(other, payment)) == expected

    async def test_an_order_that_the_provider_never_accepts_fails(
        self, service: PaymentService, provider: FakeProvider
    ) -> None:
        """The provider would refuse it again later."""
        provider.refuses_with = FailureReason.REFUSED
        payment = await service.pay(ORDER, "k")

        assert outcome(payment) == (FAILED, FailureReason.REFUSED, None, 0, NOON)

    @pytest.mark.parametrize("fault", ATTEMPTS, ids=repr)
    @pytest.mark.parametrize("charges", [False, True])
    async def test_a_failing_provider_leaves_a_pending_payment(
        self,
        charges: bool,
        fault: Exception,
        service: PaymentService,
        provider: FakeProvider,
        other: Database,
    ) -> None:
        """It may or may not have charged, so the payment is due again soon."""
        provider.fault, provider.charges_before_fault = fault, charges
        payment = await service.pay(ORDER, "k")

        assert outcome(payment) == (PENDING, None, None, 1, None)
        assert 1.5 <= wait_of(payment) <= 2.5
        there = await found(other, payment)
        assert (outcome(there), there.due_at) == (outcome(payment), payment.due_at)

    @pytest.mark.parametrize("fault", NOT_ASKED, ids=repr)
    async def test_a_provider_that_was_not_called_counts_as_no_attempt(
        self, fault: Exception, service: PaymentService, provider: FakeProvider
    ) -> None:
        """The payment waits no longer than after the first attempt."""
        provider.fault = fault
        payment = await service.pay(ORDER, "k")

        assert outcome(payment) == (PENDING, None, None, 0, None)
        assert 1.5 <= wait_of(payment) <= 2.5

    async def test_an_open_database_circuit_accepts_nothing(
        self, service: PaymentService, provider: FakeProvider
    ) -> None:
        """The order is not accepted, and the provider gets no request."""
        database_breaker().force_open("maintenance")
        with pytest.raises(CircuitOpenError):
            await service.pay(ORDER, "k")

        assert provider.calls == []

    async def test_a_client_that_leaves_loses_nothing(
        self, service: PaymentService, provider: FakeProvider, clock: FakeClock, other: Database
    ) -> None:
        """The payment stays claimed and is due again after the claim."""

        async def hang_up() -> None:
            raise asyncio.CancelledError

        provider.meanwhile = hang_up
        with pytest.raises(asyncio.CancelledError):
            await service.pay(ORDER, "k")

        assert await service.claim_due(1) == []
        clock.advance(30.0)
        (claim,) = await service.claim_due(1)
        assert outcome(await found(other, claim.payment)) == (PENDING, None, None, 0, None)

    async def test_a_bug_is_not_swallowed(
        self, service: PaymentService, provider: FakeProvider
    ) -> None:
        """An unexpected error is raised, and the payment can be claimed again."""
        provider.fault = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            await service.pay(ORDER, "k")


class TestRepeats:
    """An order repeated with its key."""

    @pytest.mark.parametrize(
        "make", ["succeeded", "declined", "pending"], ids=lambda word: f"first-{word}"
    )
    async def test_the_same_payment_comes_back(
        self, make: str, service: PaymentService, provider: FakeProvider
    ) -> None:
        """It is returned as it is, and the provider gets no second call."""
        provider.refuses_with = FailureReason.DECLINED if make == "declined" else None
        provider.fault = ProviderTimeoutError("slow") if make == "pending" else None
        first = await service.pay(ORDER, "k")
        provider.fault = None

        again = await service.pay(ORDER, "k")

        assert (again.id, outcome(again), again.due_at) == (
            first.id,
            outcome(first),
            first.due_at,
        )
        assert len(provider.calls) == 1

    @pytest.mark.parametrize(
        "change", [{"amount": 1}, {"currency": "JPY"}, {"customer_id": "other"}], ids=str
    )
    async def test_another_order_is_refused(
        self, change: dict[str, Any], service: PaymentService, provider: FakeProvider
    ) -> None:
        """The first payment stays unchanged, and the provider gets no other order."""
        first = await service.pay(ORDER, "k")
        with pytest.raises(IdempotencyKeyReusedError):
            await service.pay(ORDER.model_copy(update=change), "k")

        assert outcome(await service.pay(ORDER, "k")) == outcome(first)
        assert len(provider.calls) == 1

    async def test_of_many_at_once_one_is_charged(
        self, service: PaymentService, provider: FakeProvider
    ) -> None:
        """All of them get the same payment."""
        payments = await asyncio.gather(*(service.pay(ORDER, "k") for _ in range(10)))

        assert len({payment.id for payment in payments}) == 1
        assert provider.calls == [("charge", payments[0].id)]

    async def test_what_is_not_stored_is_not_charged(
        self, service: PaymentService, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The payment of a key may be deleted before it is read."""

        async def gone(*_: object) -> None:
            return None

        await service.pay(ORDER, "k")
        monkeypatch.setattr(PaymentRepository, "_insert", gone)
        monkeypatch.setattr(PaymentRepository, "find_by_key", gone)

        with pytest.raises(DatabaseUnavailableError):
            await service.pay(ORDER, "k")
        assert len(provider.calls) == 1

    async def test_other_keys_are_other_payments(
        self, service: PaymentService, provider: FakeProvider
    ) -> None:
        """A caller may order the same thing twice, and keys are case-sensitive."""
        payments = [await service.pay(ORDER, key) for key in ("k", "K", "k ")]

        assert len({payment.id for payment in payments}) == 3
        assert list(provider.charged.values()) == [1, 1, 1]


class TestOutcomesThatCannotBeStored:
    """The database fails between the charge and its record."""

    async def test_the_payment_stays_pending_and_is_charged_once(
        self,
        service: PaymentService,
        provider: FakeProvider,
        clock: FakeClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The response says pending, and the next attempt finds the charge and stores it."""

        async def lose_the_database() -> None:
            database_breaker().force_open("maintenance")

        provider.meanwhile = lose_the_database
        payment = await service.pay(ORDER, "k")
        assert outcome(payment) == (PENDING, None, None, 0, None)
        assert provider.charged == {payment.id: 1}
        (record,) = [record for record in caplog.records if "could not be stored" in record.message]
        assert (record.levelname, record.__dict__["payment_id"]) == ("WARNING", str(payment.id))

        provider.meanwhile = FakeProvider().meanwhile
        await database_breaker().reset()
        assert await service.claim_due(1) == []
        clock.advance(30.0)
        (again,) = await service.claim_due(1)
        finished = await service.process_claim(again)

        assert outcome(finished) == (SUCCEEDED, None, f"ch_{payment.id}", 0, at(30))
        assert provider.charged == {payment.id: 1}

    @pytest.mark.parametrize("fault", [*ATTEMPTS, *NOT_ASKED], ids=repr)
    async def test_no_other_outcome_raises_either(
        self,
        fault: Exception,
        service: PaymentService,
        provider: FakeProvider,
        other: Database,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The payment is accepted, so the client gets no error, and no end is logged."""

        async def lose_the_database() -> None:
            database_breaker().force_open("maintenance")

        provider.meanwhile, provider.fault = lose_the_database, fault
        payment = await service.pay(ORDER, "k")
        await database_breaker().reset()

        assert outcome(payment) == (PENDING, None, None, 0, None)
        there = await found(other, payment)
        assert (outcome(there), there.due_at) == (outcome(payment), at(30))
        assert "A payment has failed" not in caplog.text


class TestBackoff:
    """The wait of a payment until its next attempt."""

    async def test_waits_double_up_to_a_limit(
        self,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        no_jitter: list[tuple[float, float]],
    ) -> None:
        """The limit applies however many attempts there were."""
        provider.fault = ProviderUnavailableError("down")
        waits = []
        for attempts in (0, 1, 2, 3, 4, 5, 6, 7, 8, 30, 2_000_000):
            now = await service.process_claim(await claimed(database, attempts=attempts))
            assert now.attempts == attempts + 1
            waits.append(wait_of(now))

        assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
        assert set(no_jitter) == {(0.75, 1.25)}

    async def test_waits_are_spread(
        self, service: PaymentService, provider: FakeProvider, database: Database
    ) -> None:
        """Payments that failed together are not retried together."""
        provider.fault = ProviderUnavailableError("down")
        waits = [wait_of(await service.process_claim(await claimed(database))) for _ in range(10)]

        assert len(set(waits)) == 10
        assert all(1.5 <= wait <= 2.5 for wait in waits)

    @pytest.mark.parametrize("fault", NOT_ASKED, ids=repr)
    async def test_an_open_circuit_makes_no_wait_longer(
        self,
        fault: Exception,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        no_jitter: list[tuple[float, float]],
    ) -> None:
        """The provider got no call, so the attempt does not count."""
        provider.fault = fault
        now = await service.process_claim(await claimed(database, attempts=9))

        assert (now.attempts, wait_of(now), len(no_jitter)) == (9, 2, 1)

    async def test_each_attempt_is_logged_without_the_order(
        self,
        service: PaymentService,
        provider: FakeProvider,
        database: Database,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The payment's ID leads to the other data."""
        provider.fault = InvalidProviderAnswerError("too large")
        claim = await claimed(database, attempts=2)
        await service.process_claim(claim)

        (record,) = [
            record for record in caplog.records if record.name.startswith("example_service.pay")
        ]
        logged = {
            name: record.__dict__[name] for name in ("payment_id", "attempts", "reason", "detail")
        }
        assert logged == {
            "payment_id": str(claim.payment.id),
            "attempts": 3,
            "reason": "InvalidProviderAnswerError",
            "detail": "too large",
        }
        assert record.levelname == "WARNING"
        assert not {ORDER.customer_id} & set(map(str, record.__dict__.values()))


def test_steady_seconds_do_not_depend_on_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """They pass regularly, even if the wall clock jumps."""
    before = steady_seconds()
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert 0.0 <= steady_seconds() - before < 10.0
