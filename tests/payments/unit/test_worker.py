"""The worker: what it claims, when it looks again, and how it stops."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import pytest

from example_service.core.lifecycle import begin_draining, end_draining
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import CircuitBreaker, CircuitOpenError, CircuitState
from example_service.infra.resilience.testing import FakeClock, half_opened, opened
from example_service.payments.models import Payment
from example_service.payments.service import Claim, PaymentService
from example_service.payments.settings import PaymentSettings
from example_service.payments.worker import PaymentWorker
from tests.databases import at
from tests.payments.unit.fakes import nothing, pending_payment

DEADLINE_SECONDS = 60.0
SETTINGS = PaymentSettings(batch_size=4, poll_seconds=1.0)

Work: TypeAlias = Callable[[Payment], Awaitable[Payment]]


class FakeService(PaymentService):
    """A service with due payments that works on them as a test demands.

    Attributes:
        due: The payments that `claim_due` returns and the errors that it raises, in order.
        limits: The limit of each `claim_due`.
        worked_on: The payments that were worked on.
        work: Called for each payment.
    """

    def __init__(self) -> None:
        self.due: list[Payment | Exception] = []
        self.limits: list[int] = []
        self.worked_on: list[Payment] = []
        self.work: Callable[[Payment], Awaitable[None]] = lambda _: nothing()

    async def claim_due(self, limit: int) -> list[Claim]:
        """Return the due payments, or raise the next error."""
        self.limits.append(limit)
        batch: list[Claim] = []
        while self.due and len(batch) < limit:
            if isinstance(self.due[0], Exception) and batch:
                break
            one = self.due.pop(0)
            if isinstance(one, Exception):
                raise one
            batch.append(Claim(one, ends_at=0.0))
        return batch

    async def process_claim(self, claim: Claim) -> Payment:
        """Record the payment as worked on."""
        await self.work(claim.payment)
        self.worked_on.append(claim.payment)
        return claim.payment

    async def has_due(self) -> bool:
        """Whether there are due payments."""
        return bool(self.due)


class FakeGate:
    """The gate of a fleet between an open circuit and its probes.

    Attributes:
        grants: The number of probes that may start.
        asked: The number of refused calls that asked for a probe.
    """

    def __init__(self) -> None:
        self.grants = 0
        self.asked = 0

    def can_probe(self) -> bool:
        """Whether a probe may start."""
        return self.grants > 0

    def take_probe(self) -> bool:
        """Take a grant for a probe."""
        self.grants -= 1
        return self.grants >= 0

    def request_probe(self) -> None:
        """Record that a probe is wanted."""
        self.asked += 1

    def probe_ended(self, *, succeeded: bool | None) -> None:
        """Return the grant of a probe without a result."""
        if succeeded is None:
            self.grants += 1


class QuickWorker(PaymentWorker):
    """A worker that records its pauses without sleeping, and stops after a number of them.

    Attributes:
        pauses: The length of each pause in seconds.
    """

    pauses: list[float]
    pauses_until_stop: int

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self.pauses_until_stop:
            self._stopped.set()


@pytest.fixture
def service() -> FakeService:
    """A service with nothing to do."""
    return FakeService()


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the breaker and, from noon on, of the service."""
    return FakeClock(at(0).timestamp())


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    """The provider's breaker."""
    return CircuitBreaker("payment", half_open_max_calls=3, clock=clock, registry=None)


@pytest.fixture
def worker(service: FakeService, breaker: CircuitBreaker) -> PaymentWorker:
    """A worker that claims four payments at once and looks every second."""
    return PaymentWorker(service, breaker, SETTINGS)


def payments(number: int) -> list[Payment]:
    """That many payments."""
    return [pending_payment() for _ in range(number)]


class TestRunOnce:
    """A single look for due payments."""

    async def test_all_that_is_due_is_worked_on(
        self, worker: PaymentWorker, service: FakeService
    ) -> None:
        """It then pauses, because there are no more payments."""
        due = payments(3)
        service.due = [*due]

        assert await worker.run_once() == 1.0
        assert (service.limits, service.worked_on) == ([4], due)

    async def test_a_full_batch_is_followed_by_the_next_at_once(
        self, worker: PaymentWorker, service: FakeService
    ) -> None:
        """There may be more payments."""
        due = payments(5)
        service.due = [*due]

        assert [await worker.run_once(), await worker.run_once()] == [0.0, 1.0]
        assert service.worked_on == due

    async def test_the_payments_of_a_batch_are_worked_on_together(
        self, worker: PaymentWorker, service: FakeService
    ) -> None:
        """Each payment waits for all others, so working one by one would never end."""
        together = asyncio.Barrier(4)

        async def meet(_: Payment) -> None:
            await together.wait()

        service.due, service.work = [*payments(4)], meet
        async with asyncio.timeout(DEADLINE_SECONDS):
            await worker.run_once()

        assert len(service.worked_on) == 4

    @pytest.mark.parametrize(
        ("retry_after", "wait"), [(2.5, 2.5), (5.0, 5.0), (60.0, 5.0)], ids=str
    )
    async def test_nothing_is_taken_up_while_the_circuit_is_open(
        self,
        retry_after: float,
        wait: float,
        worker: PaymentWorker,
        service: FakeService,
        breaker: CircuitBreaker,
    ) -> None:
        """It looks again after the wait, or sooner because an operator may close the circuit."""
        service.due = [*payments(1)]
        with opened(breaker, retry_after=retry_after):
            assert await worker.run_once() == wait

        assert service.limits == []

    async def test_a_circuit_that_is_held_open_is_looked_at_now_and_then(
        self, worker: PaymentWorker, service: FakeService, breaker: CircuitBreaker
    ) -> None:
        """It is unknown when an operator will close it."""
        breaker.force_open("maintenance")

        assert await worker.run_once() == 1.0
        assert service.limits == []

    async def test_a_fleet_is_asked_for_the_probe_that_ends_an_outage(
        self,
        worker: PaymentWorker,
        service: FakeService,
        breaker: CircuitBreaker,
        clock: FakeClock,
    ) -> None:
        """Without other calls, the circuit would stay open and payments pending."""
        gate = FakeGate()
        breaker.machine.gate = gate
        service.due = [*payments(1)]
        with opened(breaker, retry_after=2.0, clock=clock):
            clock.advance(2.1)
            refused = await worker.run_once()
            claimed, gate.grants = list(service.limits), 1
            await worker.run_once()

        assert (gate.asked, refused, claimed) == (1, 0.5, [])
        assert service.limits == [breaker.half_open_max_calls]
        assert len(service.worked_on) == 1

    async def test_a_fleet_is_asked_for_no_probe_while_nothing_is_due(
        self, worker: PaymentWorker, breaker: CircuitBreaker, clock: FakeClock
    ) -> None:
        """The probe may be needed by a process that has calls."""
        gate = FakeGate()
        breaker.machine.gate = gate
        with opened(breaker, retry_after=2.0, clock=clock):
            clock.advance(2.1)
            wait = await worker.run_once()

        assert (gate.asked, wait) == (0, 1.0)

    @pytest.mark.parametrize(("batch_size", "limit"), [(4, 3), (2, 2)])
    async def test_a_half_open_circuit_gets_its_probes_and_no_more(
        self, batch_size: int, limit: int, service: FakeService, breaker: CircuitBreaker
    ) -> None:
        """Payments that it would refuse are not claimed."""
        worker = PaymentWorker(service, breaker, PaymentSettings(batch_size=batch_size))
        with half_opened(breaker):
            await worker.run_once()

        assert service.limits == [limit]

    async def test_nothing_is_taken_up_while_stopping(
        self, service: FakeService, breaker: CircuitBreaker
    ) -> None:
        """New work would have to be cut off."""
        service.due = [*payments(1)]
        worker = PaymentWorker(service, breaker, SETTINGS, is_stopping=lambda: True)

        assert await worker.run_once() == 1.0
        assert service.limits == []

    @pytest.mark.usefixtures("draining")
    async def test_a_service_that_drains_is_stopping(
        self, worker: PaymentWorker, service: FakeService
    ) -> None:
        """The worker notices that by itself."""
        await worker.run_once()

        assert service.limits == []

    async def test_an_unexpected_error_is_logged_and_stops_no_other_payment(
        self, worker: PaymentWorker, service: FakeService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log line has the ID of the payment, which will be claimed again."""
        first, second, third = due = payments(3)

        async def fail(payment: Payment) -> None:
            if payment is second:
                raise ZeroDivisionError

        service.due, service.work = [*due], fail
        assert await worker.run_once() == 1.0

        assert service.worked_on == [first, third]
        (record,) = caplog.records
        assert record.__dict__["payment_id"] == str(second.id)
        assert record.levelname == "ERROR"
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError


@pytest.fixture
def draining() -> Iterator[None]:
    """The process is draining."""
    begin_draining()
    yield
    end_draining()


class TestRunning:
    """Looking repeatedly."""

    async def test_it_goes_on_whatever_happens(
        self,
        service: FakeService,
        breaker: CircuitBreaker,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It waits as long as the database's circuit says, between one and five seconds."""
        due = payments(5)
        service.due = [
            DatabaseUnavailableError("down"),
            CircuitOpenError("database", CircuitState.OPEN, 0.2, None),
            CircuitOpenError("database", CircuitState.OPEN, 3.0, None),
            CircuitOpenError("database", CircuitState.OPEN, 60.0, None),
            CircuitOpenError("database", CircuitState.OPEN, None, None),
            ZeroDivisionError("a bug"),
            *due,
        ]
        worker = QuickWorker(service, breaker, SETTINGS)
        worker.pauses, worker.pauses_until_stop = [], 8
        async with asyncio.timeout(DEADLINE_SECONDS), worker.running():
            await worker._stopped.wait()

        assert worker.pauses == [1.0, 1.0, 3.0, 5.0, 1.0, 5.0, 0.0, 1.0]
        assert service.worked_on == due
        (record,) = caplog.records
        assert (record.levelname, record.message) == (
            "ERROR",
            "The payment worker failed; it continues",
        )

    async def test_an_error_that_comes_again_is_logged_once(
        self, service: FakeService, breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged again after a success; another error gets its own line."""
        bug, other = ZeroDivisionError("a bug"), LookupError("another")
        service.due = [bug, bug, other, bug, *payments(5), bug]
        worker = QuickWorker(service, breaker, SETTINGS)
        worker.pauses, worker.pauses_until_stop = [], 8
        async with asyncio.timeout(DEADLINE_SECONDS), worker.running():
            await worker._stopped.wait()

        logged = [(record.__dict__["error"], bool(record.exc_info)) for record in caplog.records]
        assert logged == [
            ("ZeroDivisionError", True),
            ("LookupError", True),
            ("ZeroDivisionError", True),
            ("ZeroDivisionError", True),
        ]

    async def test_it_polls_by_itself(self, service: FakeService, breaker: CircuitBreaker) -> None:
        """Payments that become due while it runs are worked on."""
        worker = PaymentWorker(service, breaker, PaymentSettings(poll_seconds=0.001))
        worked = asyncio.Event()

        async def note(_: Payment) -> None:
            worked.set()

        service.work = note
        async with asyncio.timeout(DEADLINE_SECONDS), worker.running():
            while len(service.limits) < 2:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0)
            service.due = [*payments(1)]
            await worked.wait()

    async def test_it_ends_at_once_where_it_only_waits(
        self, service: FakeService, breaker: CircuitBreaker
    ) -> None:
        """Stopping cuts a pause of an hour short."""
        worker = PaymentWorker(service, breaker, PaymentSettings(poll_seconds=3600.0))
        async with asyncio.timeout(DEADLINE_SECONDS), worker.running():
            while not service.limits:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0)

        assert len(service.limits) == 1

    async def test_work_in_progress_is_finished_before_the_end(
        self, worker: PaymentWorker, service: FakeService
    ) -> None:
        """No further payments are claimed, even after a full batch."""
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def work(_: Payment) -> None:
            begun.set()
            await may_end.wait()

        due = payments(6)
        service.due, service.work = [*due], work

        async def run() -> None:
            async with worker.running():
                await begun.wait()

        running = asyncio.create_task(run())
        await begun.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not running.done()
        may_end.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await running

        assert (service.worked_on, service.limits) == (due[:4], [4])

    async def test_work_that_does_not_end_is_cut_off(
        self, service: FakeService, breaker: CircuitBreaker
    ) -> None:
        """Stopping does not wait forever."""
        cut_off = []

        async def hang(payment: Payment) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cut_off.append(payment)
                raise

        due = payments(2)
        service.due, service.work = [*due], hang
        worker = PaymentWorker(service, breaker, SETTINGS, stop_seconds=0.01)
        async with asyncio.timeout(DEADLINE_SECONDS), worker.running():
            while not service.limits:  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(0)

        assert (cut_off, service.worked_on) == (due, [])

    async def test_it_ends_with_a_block_that_fails(self, worker: PaymentWorker) -> None:
        """A service that fails to start leaves no task behind."""
        with pytest.raises(ZeroDivisionError):
            async with worker.running():
                raise ZeroDivisionError

        assert [task.get_name() for task in asyncio.all_tasks()].count("payment worker") == 0
