"""Transactions: what they commit, what they roll back, and which errors they raise."""

import asyncio
import gc
import itertools
import socket
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy.exc
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError

from example_service.core.settings import Settings
from example_service.core.settings.model import DatabaseSettings
from example_service.infra.database.database import Database, database_breaker, open_database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import (
    CircuitBreakerRegistry,
    CircuitOpenError,
    circuit_breaker_registry,
)
from example_service.payments.models import UNNAMED, Payment, PaymentStatus
from tests.databases import NOON, settings_for
from tests.killed_at import killed_at

pytestmark = pytest.mark.usefixtures("threads_of_sqlite")


def payment(**values: Any) -> Payment:
    """A pending payment."""
    given = {
        "id": uuid4(),
        "caller": UNNAMED,
        "idempotency_key": str(uuid4()),
        "amount": 1250,
        "currency": "EUR",
        "customer_id": "customer-7",
        "status": PaymentStatus.PENDING,
        "attempts": 0,
        "created_at": NOON,
        "due_at": NOON,
    }
    return Payment(**given | values)


def values_of(payment: Payment) -> dict[str, Any]:
    """The column values of a payment."""
    return {column.key: getattr(payment, column.key) for column in Payment.__mapper__.column_attrs}


async def count(database: Database) -> int:
    """The number of payments that another transaction sees."""
    async with database.transaction() as session:
        return await session.scalar(select(func.count()).select_from(Payment)) or 0


def impatient(settings: Settings, **limits: Any) -> Settings:
    """The same settings with other limits of the database."""
    return settings.model_copy(update={"database": DatabaseSettings(**limits)})


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """Turn off garbage collection, which would close forgotten connections."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """The registry of a process without breakers."""
    return CircuitBreakerRegistry()


class TestTransactions:
    """What happens to the work of a block."""

    async def test_the_end_of_the_block_commits(self, database: Database, other: Database) -> None:
        """All other connections see what was added."""
        async with database.transaction() as session:
            session.add(payment())

        assert await count(other) == 1

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
    async def test_an_exception_rolls_back_and_goes_on(
        self, error: type[BaseException], database: Database
    ) -> None:
        """Nothing of the block remains, and its connection is free again."""

        async def work() -> None:
            async with database.transaction() as session:
                session.add(payment())
                await session.flush()
                raise error

        with pytest.raises(error):
            await work()

        assert await count(database) == 0

    async def test_a_cancelled_task_rolls_back(self, database: Database) -> None:
        """A client that disconnects within a block leaves nothing behind."""
        begun, never = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            async with database.transaction() as session:
                session.add(payment())
                await session.flush()
                begun.set()
                await never.wait()

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert await count(database) == 0

    @pytest.mark.usefixtures("no_garbage_collection")
    async def test_a_task_that_is_killed_leaves_no_lock_behind(
        self, settings: Settings, database: Database
    ) -> None:
        """Whichever await is the last, other writers need not wait."""
        new = insert(Payment).returning(Payment.id)

        async def work() -> None:
            async with database.transaction() as session:
                await session.execute(new.values(values_of(payment())))

        await count(database)
        async with open_database(impatient(settings, statement_timeout_seconds=4.0)) as other:
            for step in itertools.count():
                task = asyncio.create_task(killed_at(step, work()))
                await asyncio.wait([task])
                async with other.transaction() as session:
                    session.add(payment())
                if not task.cancelled():
                    task.result()
                    break

        assert step > 3
        assert await count(database) >= step + 2

    async def test_a_task_that_waits_for_its_turn_can_be_cancelled(
        self, settings: Settings
    ) -> None:
        """It does not keep its place in the pool."""
        async with open_database(impatient(settings, pool_size=1)) as database:
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
                task = asyncio.create_task(count(database))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

            assert await count(database) == 0

    async def test_what_was_loaded_can_be_read_after_the_block(self, database: Database) -> None:
        """Responses are built after the commit from objects of the block."""
        new = payment()
        async with database.transaction() as session:
            session.add(new)

        assert (new.status, new.attempts, new.created_at) == (PaymentStatus.PENDING, 0, NOON)

    async def test_writers_follow_each_other(self, database: Database, other: Database) -> None:
        """Many writers in two processes all succeed, and none sees a locked database."""

        async def add(to: Database) -> None:
            async with to.transaction() as session:
                before = await session.scalar(select(func.count()).select_from(Payment))
                assert before is not None
                session.add(payment())

        await asyncio.gather(*(add(to) for to in (database, other) for _ in range(10)))

        assert await count(database) == 20

    async def test_no_connection_is_held_after_a_block(self, database: Database) -> None:
        """All connections are back in the pool."""
        await asyncio.gather(*(count(database) for _ in range(20)))

        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


class TestErrors:
    """The errors that a transaction raises."""

    async def test_a_violated_constraint_passes_through(self, database: Database) -> None:
        """It comes from a healthy database and does not count as a failure."""
        with pytest.raises(IntegrityError, match="ck_payments_amount_is_positive"):
            async with database.transaction() as session:
                session.add(payment(amount=0))

        assert database_breaker().total_failures == 0

    async def test_errors_of_the_block_pass_through(self, database: Database) -> None:
        """An exception of the caller is not the database's."""
        with pytest.raises(ZeroDivisionError):
            async with database.transaction():
                raise ZeroDivisionError

    async def test_a_refused_connection_means_unavailable(self) -> None:
        """Three refused connections open the circuit, and then none is tried."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            async with open_database(
                settings_for(f"postgresql://nobody@127.0.0.1:{port}/nothing")
            ) as database:
                for _ in range(3):
                    with pytest.raises(DatabaseUnavailableError) as caught:
                        await count(database)
                    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
                with pytest.raises(CircuitOpenError) as refused:
                    await count(database)

        assert refused.value.breaker_name == "database"

    async def test_a_file_that_cannot_be_opened_means_unavailable(
        self, sqlite_settings: Settings
    ) -> None:
        """A directory is not a database."""
        url = sqlite_settings.database_url.get_secret_value()
        async with open_database(settings_for(url.rpartition("/")[0])) as database:
            with pytest.raises(DatabaseUnavailableError, match=r"^unable to open database file$"):
                await count(database)

    async def test_a_silent_server_means_unavailable(self) -> None:
        """A server that accepts connections but stays silent is given up after the timeout."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            settings = settings_for(f"postgresql://nobody@127.0.0.1:{port}/nothing?sslmode=disable")
            async with open_database(impatient(settings, connect_timeout_seconds=0.01)) as database:
                with pytest.raises(DatabaseUnavailableError) as caught:
                    await count(database)

        assert isinstance(caught.value.__cause__, TimeoutError)

    async def test_an_empty_pool_means_unavailable(self, settings: Settings) -> None:
        """It does not count as a failure of the database."""
        limits = impatient(settings, pool_size=1, pool_timeout_seconds=0.01)
        async with (
            open_database(limits) as database,
            database.transaction() as session,
        ):
            await session.connection()
            with pytest.raises(DatabaseUnavailableError) as caught:
                await count(database)

        assert isinstance(caught.value.__cause__, sqlalchemy.exc.TimeoutError)
        assert database_breaker().total_failures == 0

    async def test_another_writer_that_does_not_end_means_unavailable(
        self, sqlite_settings: Settings
    ) -> None:
        """The locked file opens no circuit and becomes free again."""
        limits = impatient(sqlite_settings, statement_timeout_seconds=0.01)
        async with open_database(sqlite_settings) as writer, open_database(limits) as database:
            async with writer.transaction() as session:
                await session.connection()
                with pytest.raises(DatabaseUnavailableError) as caught:
                    await count(database)
            assert await count(database) == 0

        assert "database is locked" in str(caught.value.__cause__)
        assert database_breaker().total_failures == 0

    @pytest.mark.integration
    async def test_a_statement_that_takes_too_long_means_unavailable(
        self, postgres_settings: Settings
    ) -> None:
        """The server cancels it, and it counts as a failure."""
        limits = impatient(postgres_settings, statement_timeout_seconds=0.5)
        async with open_database(limits) as database:
            with pytest.raises(DatabaseUnavailableError) as caught:
                async with database.transaction() as session:
                    await session.execute(text("SELECT pg_sleep(30)"))

        assert "statement timeout" in str(caught.value.__cause__)
        assert database_breaker().total_failures == 1

    async def test_an_open_circuit_refuses_at_once(self, database: Database) -> None:
        """No query is sent, and the error has the wait."""
        database_breaker().force_open("maintenance", seconds=60.0)

        with pytest.raises(CircuitOpenError) as caught:
            await count(database)

        assert caught.value.retry_after == pytest.approx(60.0, abs=1.0)

    async def test_a_transaction_that_has_begun_may_end_while_the_circuit_is_open(
        self, database: Database, other: Database
    ) -> None:
        """Failures of other callers do not discard its work."""
        async with database.transaction() as session:
            session.add(payment())
            await session.flush()
            database_breaker().force_open("others failed")
        await database_breaker().reset()

        assert await count(other) == 1


class TestBreaker:
    """The breaker of the database."""

    def test_it_is_one_for_the_process_and_patient_by_its_own_numbers(
        self, registry: CircuitBreakerRegistry
    ) -> None:
        """Three failures in a row open it, and a hanging statement is a failure."""
        breaker = database_breaker(registry)

        assert database_breaker(registry) is breaker
        assert (
            breaker.name,
            breaker.failure_threshold,
            breaker.recovery_timeout,
            breaker.slow_call_duration,
        ) == ("database", 3, 2.0, 1.5)

    def test_settings_win(self, registry: CircuitBreakerRegistry) -> None:
        """`CIRCUIT_BREAKERS__DATABASE__…` overrides the defaults in the code."""
        registry.configure({"database": {"failure_threshold": 7}})

        assert database_breaker(registry).failure_threshold == 7

    async def test_the_database_is_guarded_by_the_breaker_that_is_monitored(
        self, database: Database
    ) -> None:
        """Its statements count in that breaker."""
        before = circuit_breaker_registry.get_or_create("database").total_successes
        await count(database)

        assert circuit_breaker_registry.get_or_create("database").total_successes > before


async def test_connections_are_closed_at_the_end(settings: Settings) -> None:
    """The pool is empty after the block."""
    async with open_database(settings) as database:
        await count(database)
        pool = database.engine.pool
        assert pool.checkedin() == 1  # type: ignore[attr-defined]

    assert pool.checkedin() == 0  # type: ignore[attr-defined]
