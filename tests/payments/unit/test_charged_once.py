"""Whatever fails, an accepted payment is charged once, or has failed and is not charged.

The machine sends orders and lets processes claim payments, on a real database. Calls to the
provider are held until a later step ends them: with an answer, with a failure, or with a charge
whose answer is lost. Processes are killed at any of their awaits, the database goes away and comes
back, and time passes. In the end everything is healed, and the books must balance.
"""

import asyncio
import gc
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from example_service.infra.database.database import Database, database_breaker
from example_service.infra.database.engine import create_engine
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.testing import FakeClock
from example_service.payments.answers import Charged, NotCharged, Outcome
from example_service.payments.exceptions import ProviderTimeoutError
from example_service.payments.models import FailureReason, Payment, PaymentOrder, PaymentStatus
from example_service.payments.provider import PaymentProvider
from example_service.payments.service import PaymentService
from example_service.payments.settings import PaymentSettings
from tests.databases import SQLiteDatabases, settings_for
from tests.killed_at import killed_at
from tests.payments.unit.fakes import ORDER, moments

SETTINGS = PaymentSettings(
    claim_seconds=30.0, retry_seconds=2.0, max_retry_seconds=8.0, give_up_seconds=60.0
)
CALL_SECONDS = 2.0
"""The timeout of a call to the provider, as in the default settings."""

PROCESSES = 2
KEYS = ["a", "b", "c"]
kills = st.none() | st.integers(0, 40)
"""The await at which a process is killed, or None."""


@dataclass(eq=False)
class Call:
    """A call to the provider that waits for its end."""

    kind: str
    payment_id: UUID
    deadline: float
    end: "asyncio.Future[str]" = field(default_factory=asyncio.Future)


class HeldProvider(PaymentProvider):
    """Ends each call as the test says, and keeps the books.

    Attributes:
        held: The calls that wait for their end, by task.
        charged: How often money has moved, by payment.
        ended: Why a payment is never charged, by payment.
        on_their_way: The charges that may still arrive at any time.
        heals: Whether calls are answered at once.
        moved: Set when a call arrives.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.held: dict[asyncio.Task[Any], Call] = {}
        self.charged: Counter[UUID] = Counter()
        self.ended: dict[UUID, FailureReason] = {}
        self.on_their_way: list[UUID] = []
        self.heals = False
        self.moved = asyncio.Event()
        self._clock = clock

    async def charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Charge a payment once."""
        assert order == ORDER
        end = await self._held("charge", payment_id)
        if end == "fail":
            self.on_their_way.append(payment_id)
            raise ProviderTimeoutError
        if end in {FailureReason.DECLINED, FailureReason.REFUSED}:
            self.end(payment_id, FailureReason(end))
        self.record(payment_id)
        return self._outcome(payment_id, end)

    async def cancel(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Never charge a payment, unless it was charged before."""
        assert order == ORDER
        end = await self._held("cancel", payment_id)
        if end == "fail":
            raise ProviderTimeoutError
        self.end(payment_id, FailureReason.CANCELLED)
        return self._outcome(payment_id, end)

    def record(self, payment_id: UUID) -> None:
        """Charge a payment, unless it was charged or ended before."""
        if payment_id not in self.ended:
            self.charged[payment_id] = 1

    def end(self, payment_id: UUID, reason: FailureReason) -> None:
        """Never charge a payment, unless it was charged before."""
        if not self.charged[payment_id]:
            self.ended.setdefault(payment_id, reason)

    def _outcome(self, payment_id: UUID, end: str) -> Outcome:
        if end == "lose the answer":
            raise ProviderTimeoutError
        if payment_id in self.ended:
            return NotCharged(self.ended[payment_id])
        return Charged(f"ch_{payment_id}")

    async def _held(self, kind: str, payment_id: UUID) -> str:
        if self.heals:
            return "answer"
        task = asyncio.current_task()
        assert task is not None
        call = self.held[task] = Call(kind, payment_id, self._clock.now + CALL_SECONDS)
        self.moved.set()
        try:
            return await call.end
        finally:
            del self.held[task]


class PaymentsMachine(RuleBasedStateMachine):
    """Processes, a provider, a database and a client that fail, and the promises they keep."""

    databases: SQLiteDatabases

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="payments-"))
        url = self.databases.migrated(self.folder / "payments.sqlite3")
        self.clock = FakeClock()
        self.loop = asyncio.Runner()
        self.run = self.loop.run
        self.provider: HeldProvider = self.run(self._provider())
        self.breaker: CircuitBreaker = database_breaker(CircuitBreakerRegistry())
        self.databases_open = [
            Database(create_engine(settings_for(url)), self.breaker) for _ in range(PROCESSES)
        ]
        self.services = [
            PaymentService(
                database,
                self.provider,
                SETTINGS,
                moment=moments(self.clock),
                steady_clock=self.clock,
            )
            for database in self.databases_open
        ]
        self.tasks: set[asyncio.Task[Any]] = set()
        self.accepted: set[UUID] = set()
        self.answered: dict[UUID, str] = {}

    async def _provider(self) -> HeldProvider:
        return HeldProvider(self.clock)

    # --- steps

    @rule(
        process=st.integers(0, PROCESSES - 1),
        key=st.sampled_from(KEYS),
        killed=kills,
    )
    def pay(self, process: int, key: str, killed: int | None) -> None:
        """An order arrives, and its process may be killed meanwhile."""
        self._start(self._pay(self.services[process], key), killed)

    @rule(
        process=st.integers(0, PROCESSES - 1),
        limit=st.integers(1, 3),
        killed=kills,
    )
    def claim_due(self, process: int, limit: int, killed: int | None) -> None:
        """A process claims payments that are due, and may be killed meanwhile."""
        self._start(self._work(self.services[process], limit), killed)

    @precondition(lambda self: self.provider.held)
    @rule(
        which=st.integers(0, 9),
        end=st.sampled_from(["answer", "answer", "declined", "refused", "fail", "lose the answer"]),
        database_is_gone=st.booleans(),
    )
    def end_call(self, which: int, end: str, database_is_gone: bool) -> None:
        """The provider ends a call; the database may be down when the outcome is stored."""
        if database_is_gone:
            self.breaker.force_open("gone")
        calls = list(self.provider.held.values())
        calls[which % len(calls)].end.set_result(end)
        self.run(self._settled())
        self._heal_database()

    @precondition(lambda self: self.provider.held)
    @rule(which=st.integers(0, 9), arrived=st.booleans())
    def kill_caller(self, which: int, arrived: bool) -> None:
        """A process is killed while it waits for the provider, which may have got the call."""
        tasks = list(self.provider.held)
        task = tasks[which % len(tasks)]
        call = self.provider.held[task]
        if arrived and call.kind == "charge":
            self.provider.record(call.payment_id)
        elif call.kind == "charge":
            self.provider.on_their_way.append(call.payment_id)
        task.cancel()
        self.run(self._settled())

    @precondition(lambda self: self.provider.on_their_way)
    @rule(which=st.integers(0, 9))
    def arrive_late(self, which: int) -> None:
        """A charge arrives at the provider long after its caller has left."""
        on_their_way = self.provider.on_their_way
        self.provider.record(on_their_way.pop(which % len(on_their_way)))

    @rule(
        seconds=st.sampled_from([0.5, 2.5, 10.0, 31.0, 61.0]),
        end=st.sampled_from(["fail", "lose the answer"]),
    )
    def advance(self, seconds: float, end: str) -> None:
        """Time passes, and calls to the provider end at their timeout."""
        until = self.clock.now + seconds
        while overdue := [held for held in self.provider.held.values() if held.deadline <= until]:
            call = min(overdue, key=lambda held: held.deadline)
            self.clock.now = max(self.clock.now, call.deadline)
            call.end.set_result(end)
            self.run(self._settled())
        self.clock.now = until

    # --- invariants

    @invariant()
    def nobody_is_charged_for_what_has_failed(self) -> None:
        """Every answer to a client is true and stays true."""
        payments = self._payments()
        for payment in payments.values():
            charged = self.provider.charged[payment.id]
            if payment.status is PaymentStatus.SUCCEEDED:
                assert (charged, payment.charge_id) == (1, f"ch_{payment.id}")
            if payment.status is PaymentStatus.FAILED:
                assert charged == 0, payment.failure_reason
        for payment_id, status in self.answered.items():
            assert payments[payment_id].status is status

    @invariant()
    def what_was_accepted_is_there(self) -> None:
        """Accepted and charged payments are in the database."""
        charged = {payment_id for payment_id, times in self.provider.charged.items() if times}
        assert self.accepted | charged <= set(self._payments())

    def teardown(self) -> None:
        """Heal everything: each payment ends within a minute or two, charged at most once."""
        try:
            self._heal()
            for payment in self._payments().values():
                assert payment.status is not PaymentStatus.PENDING
                assert self.provider.charged[payment.id] == (
                    payment.status is PaymentStatus.SUCCEEDED
                )
        finally:
            self.run(self._close())
            self.loop.close()
            shutil.rmtree(self.folder)

    # --- helpers

    def _heal(self) -> None:
        self.provider.heals = True
        for call in self.provider.held.values():
            call.end.set_result("answer")
        self.run(self._settled())
        for _ in range(4):
            self.clock.advance(SETTINGS.claim_seconds)
            self._start(self._work(self.services[0], 100), None)
        for payment_id in self.provider.on_their_way:
            self.provider.record(payment_id)
        self.nobody_is_charged_for_what_has_failed()

    def _heal_database(self) -> None:
        self.run(self.breaker.reset())

    def _start(self, work: Coroutine[Any, Any, None], killed: int | None) -> None:
        async def start() -> None:
            self._watch(asyncio.create_task(work if killed is None else killed_at(killed, work)))
            await self._settled()

        self.run(start())

    def _watch(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.add(task)
        task.add_done_callback(lambda _: self.provider.moved.set())

    async def _pay(self, service: PaymentService, key: str) -> None:
        try:
            payment = await service.pay(ORDER, key)
        except CircuitOpenError:
            return
        self.accepted.add(payment.id)
        if payment.status is not PaymentStatus.PENDING:
            self.answered[payment.id] = payment.status

    async def _work(self, service: PaymentService, limit: int) -> None:
        for claim in await service.claim_due(limit):
            self._watch(asyncio.create_task(service.process_claim(claim)))

    async def _settled(self) -> None:
        """Wait until every task has ended or waits for the provider."""
        while [task for task in self.tasks if not task.done() and task not in self.provider.held]:
            await self.provider.moved.wait()
            self.provider.moved.clear()
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled():
                task.result()

    def _payments(self) -> dict[UUID, Payment]:
        async def read() -> dict[UUID, Payment]:
            async with self.databases_open[0].transaction() as session:
                found = (await session.scalars(select(Payment))).all()
            return {payment.id: payment for payment in found}

        return self.run(read())

    async def _close(self) -> None:
        for database in self.databases_open:
            await database.engine.dispose()


# aiosqlite leaves a connection to the garbage collector if its task is cancelled while connecting.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored .*<sqlite3.Connection:pytest.PytestUnraisableExceptionWarning"
)
def test_every_accepted_payment_is_charged_once(sqlite_databases: SQLiteDatabases) -> None:
    """This is true whatever fails, and whenever."""
    PaymentsMachine.databases = sqlite_databases
    run_state_machine_as_test(
        PaymentsMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            # Shrinking would take minutes, and a run of so few steps is readable as it is.
            phases=[Phase.generate],
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # Collect now, so that no other test is blamed.
    gc.collect()
