"""The metrics of payments: attempts, finished payments and pending ones."""

import asyncio
from contextlib import suppress
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry

from example_service.infra.database.database import Database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.backlog import BacklogWatch
from example_service.payments.exceptions import ProviderUnavailableError
from example_service.payments.metrics import PaymentMetrics
from example_service.payments.models import FailureReason
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings
from tests.databases import at
from tests.payments.unit.fakes import (
    NOT_ASKED,
    ORDER,
    FakeProvider,
    claimed,
    moments,
    pending_payment,
    stored,
)

DEADLINE_SECONDS: Final = 60.0


class Scene:
    """A service with its own metrics."""

    def __init__(self, database: Database, provider: FakeProvider, clock: FakeClock) -> None:
        self.registry = CollectorRegistry()
        metrics, moment = PaymentMetrics(self.registry), moments(clock)
        self.watch = BacklogWatch(database, metrics, moment=moment, steady_clock=clock)
        self.service = PaymentService(
            *(database, provider, PaymentSettings(provider_can_cancel=False)),
            metrics=metrics,
            moment=moment,
            steady_clock=clock,
        )

    def value(self, name: str, **labels: str) -> float | None:
        """The value of a sample."""
        return self.registry.get_sample_value(f"payments_{name}", labels)

    def counted(self) -> dict[str, float]:
        """The counters of attempts and finished payments that are not zero."""
        return {
            next(iter(sample.labels.values())): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.value
        }


@pytest.fixture
def scene(database: Database, provider: FakeProvider, clock: FakeClock) -> Scene:
    """A service in which nothing has happened yet."""
    return Scene(database, provider, clock)


def test_every_series_is_there_from_the_start(scene: Scene) -> None:
    """The first failed payment then shows as an increase."""
    for outcome in ("succeeded", "failed", "unresolved"):
        assert scene.value("finished_total", outcome=outcome) == 0
    for result in ("answered", "failed"):
        assert scene.value("attempts_total", result=result) == 0


async def test_a_charge_is_an_attempt_that_was_answered(scene: Scene) -> None:
    """It also counts as a payment that has succeeded."""
    await scene.service.pay(ORDER, "k")

    assert scene.counted() == {"answered": 1, "succeeded": 1}


async def test_a_decline_is_answered_and_has_failed(scene: Scene, provider: FakeProvider) -> None:
    """The attempt worked, and the payment is over."""
    provider.refuses_with = FailureReason.DECLINED

    await scene.service.pay(ORDER, "k")

    assert scene.counted() == {"answered": 1, "failed": 1}
    assert scene.value("finished_total", outcome="failed") == 1


async def test_an_attempt_without_an_answer_finishes_nothing(
    scene: Scene, provider: FakeProvider
) -> None:
    """The payment stays pending."""
    provider.fault = ProviderUnavailableError("down")

    await scene.service.pay(ORDER, "k")

    assert scene.value("attempts_total", result="failed") == 1
    assert scene.value("finished_total", outcome="failed") == 0


@pytest.mark.parametrize("fault", NOT_ASKED, ids=repr)
async def test_a_provider_that_was_not_called_counts_as_no_attempt(
    fault: Exception, scene: Scene, provider: FakeProvider
) -> None:
    """The circuit counts its refusals itself."""
    provider.fault = fault

    await scene.service.pay(ORDER, "k")

    assert scene.counted() == {}


async def test_a_payment_that_is_left_to_people_is_counted(
    scene: Scene, database: Database
) -> None:
    """It waits for an operator and not for the service."""
    await stored(database, pending_payment(created_at=at(-90_000), due_at=at(0)))
    [claim] = await scene.service.claim_due(1)

    await scene.service.process_claim(claim)

    assert scene.counted() == {"answered": 1, "unresolved": 1}


async def test_a_payment_that_two_processes_finish_is_counted_once(
    scene: Scene, database: Database
) -> None:
    """The process that recorded its end counts it."""
    claim = await claimed(database)

    await scene.service.process_claim(claim)
    await scene.service.process_claim(claim)

    assert scene.counted() == {"answered": 2, "succeeded": 1}


async def test_pending_payments_are_counted(scene: Scene, database: Database) -> None:
    """The age is that of the oldest payment."""
    await stored(database, pending_payment(created_at=at(-40)), pending_payment())

    await scene.watch.count()

    assert (scene.value("pending"), scene.value("oldest_pending_seconds")) == (2, 40)


@pytest.mark.parametrize("fault", [DatabaseUnavailableError("gone"), RuntimeError("no such table")])
async def test_the_age_grows_while_the_database_does_not_answer(
    fault: Exception,
    scene: Scene,
    database: Database,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second fault must not silence an alert on the age."""

    async def unavailable(_: object) -> None:
        raise fault

    await stored(database, pending_payment(created_at=at(-40)))
    await scene.watch.count()
    monkeypatch.setattr(database, "run", unavailable)
    clock.advance(100.0)

    with suppress(RuntimeError):
        await scene.watch.count()

    assert (scene.value("pending"), scene.value("oldest_pending_seconds")) == (1, 140)


async def test_nothing_grows_where_nothing_was_pending(
    scene: Scene, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unavailable database has its own alert."""

    async def unavailable(_: object) -> None:
        raise DatabaseUnavailableError("gone")

    monkeypatch.setattr(database, "run", unavailable)
    clock.advance(100.0)

    await scene.watch.count()

    assert scene.value("oldest_pending_seconds") == 0


async def test_a_count_that_has_begun_ends_before_its_database_is_closed(scene: Scene) -> None:
    """If it were cut off while connecting, its connection would stay open."""
    async with scene.watch.running(every_seconds=60.0):
        await asyncio.sleep(0)

    assert scene.value("pending") == 0


async def test_counting_goes_on_after_an_unexpected_error(
    scene: Scene, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A missing schema, for example, is logged once, however often it is missed."""
    failures = 3
    run = database.run

    async def fail_at_first(work: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("no such table")
        return await run(work)

    await stored(database, pending_payment())
    monkeypatch.setattr(database, "run", fail_at_first)
    async with asyncio.timeout(DEADLINE_SECONDS), scene.watch.running(every_seconds=0.0):
        while scene.value("pending") != 1:  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0)

    assert [record.message for record in caplog.records] == [
        "The count of pending payments failed; it goes on"
    ]
