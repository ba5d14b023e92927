"""A guarded engine on SQLite, whose every step can be made to fail."""

import asyncio
import contextvars
import gc
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import greenlet  # type: ignore[import-untyped]
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreaker,
    CircuitOpenError,
)
from example_service.infra.resilience.sqlalchemy import (
    ask_admission,
    guard_engine,
    is_database_failure,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener


def sqlite_error(message: str, code: int) -> sqlite3.OperationalError:
    """What SQLite raises for a result code."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


class DriverError(Exception):
    """An exception that is named and marked as drivers do it."""

    def __init__(self, message: str = "driver", **marks: object) -> None:
        super().__init__(message)
        vars(self).update(marks)


def cancelled(message: str) -> DriverError:
    """What PostgreSQL says about a statement that it has cancelled."""
    return DriverError(message, sqlstate="57014")


class InheritedOperationalError(type("OperationalError", (Exception,), {})):  # type: ignore[misc]
    """A driver's subclass of its PEP 249 class, such as psycopg's ConnectionTimeout."""


class PoolTimeout(InheritedOperationalError):  # noqa: N818 - Its name.
    """Named and placed like that of psycopg_pool."""

    __module__ = "psycopg_pool"


class FreeConnectionTimeout(PoolTimeout):
    """A subclass of it."""


DISK_ERROR = sqlite_error("disk I/O error", sqlite3.SQLITE_IOERR_READ)
CONNECTION_LOST = sqlite3.ProgrammingError("Cannot operate on a closed database.")
SELECT = text("SELECT 1")


class Faults:
    """What goes wrong, by the driver's method; nothing at first."""

    def __init__(self) -> None:
        self.connect: Exception | None = None
        self.execute: Exception | None = None
        self.fetch: Exception | None = None
        self.commit: Exception | None = None
        self.execute_once: list[Exception] = []
        self.executed: list[str] = []
        self.before_execute: Callable[[], object] = bool

    def connection_class(self) -> type[sqlite3.Connection]:
        """A driver's connection that has these faults."""
        faults = self

        class Cursor(sqlite3.Cursor):
            def execute(self, sql: str, parameters: Any = (), /) -> "Cursor":
                faults.executed.append(sql)
                faults.before_execute()
                strike(faults.execute_once.pop() if faults.execute_once else faults.execute)
                return super().execute(sql, parameters)

            def fetchmany(self, size: int | None = 1) -> list[Any]:
                strike(faults.fetch)
                return super().fetchmany(size)

        class Connection(sqlite3.Connection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                strike(faults.connect)
                super().__init__(*args, **kwargs)

            def cursor(self, factory: Any = Cursor) -> Any:
                return super().cursor(factory)

            def commit(self) -> None:
                strike(faults.commit)
                super().commit()

        return Connection


def strike(error: Exception | None) -> None:
    """Raise a fault, if there is one."""
    if error is not None:
        raise error


@pytest.fixture
def faults() -> Faults:
    """What goes wrong."""
    return Faults()


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    """A breaker that opens with the second failure."""
    return breaker_of(clock)


def breaker_of(clock: FakeClock, **parameters: Any) -> CircuitBreaker:
    """The same, with other parameters."""
    parameters = {"failure_threshold": 2, "success_threshold": 1, **parameters}
    return CircuitBreaker("db", recovery_timeout=10.0, clock=clock, registry=None, **parameters)


MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine(tmp_path: Path, faults: Faults, breaker: CircuitBreaker) -> Iterator[MakeEngine]:
    """Makes guarded engines that have the faults, and disposes of them in the end."""
    engines = []

    def make(by: CircuitBreaker = breaker, **options: Any) -> Engine:
        arguments = {"factory": faults.connection_class(), "check_same_thread": False}
        engine = create_engine(f"sqlite:///{tmp_path}/db", connect_args=arguments, **options)
        guard_engine(engine, by)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    """A guarded engine that has connected, with a table."""
    engine = make_engine()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE paid (id INTEGER PRIMARY KEY)"))
    return engine


@pytest.fixture
async def async_engine(
    tmp_path: Path, faults: Faults, breaker: CircuitBreaker
) -> AsyncIterator[AsyncEngine]:
    """The same, asynchronous, and without the table."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/db", connect_args={"factory": faults.connection_class()}
    )
    guard_engine(engine, breaker)
    async with engine.connect():
        pass
    yield engine
    await engine.dispose()


def half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """Let the circuit be open, and its wait be over."""
    breaker.force_open("for a second", seconds=1.0)
    clock.advance(1.0)
    assert breaker.is_half_open


def select_one(engine: Engine) -> int:
    """Ask for a number, in a session."""
    with Session(engine) as session:
        number: int = session.execute(SELECT).scalar_one()
        return number


def open_by_faults(engine: Engine, faults: Faults) -> None:
    """Have statements fail until the circuit is open, and then no more."""
    faults.execute = DISK_ERROR
    for _ in range(2):
        with pytest.raises(OperationalError):
            select_one(engine)
    faults.execute = None


class TestFailures:
    """What a database that cannot serve does to the circuit."""

    def test_failing_statements_open_the_circuit(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """Each failed statement counts once; the next is refused and never sent."""
        open_by_faults(engine, faults)
        assert breaker.is_open
        assert breaker.total_failures == 2
        faults.executed.clear()

        with pytest.raises(CircuitOpenError) as raised:
            select_one(engine)

        assert raised.value.breaker_name == "db"
        assert raised.value.retry_after == 10.0
        assert faults.executed == []
        assert breaker.in_flight == 0

    def test_failing_connects_open_the_circuit(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker, clock: FakeClock
    ) -> None:
        """A database that cannot be reached is noticed at the connect, and found again."""
        engine = make_engine()
        faults.connect = sqlite_error("unable to open database file", sqlite3.SQLITE_CANTOPEN)
        for _ in range(2):
            with pytest.raises(OperationalError):
                select_one(engine)
        with pytest.raises(CircuitOpenError):
            select_one(engine)

        faults.connect = None
        clock.advance(10.0)

        assert select_one(engine) == 1
        assert breaker.is_closed
        assert breaker.in_flight == 0

    def test_connects_of_a_creator_function_are_guarded(
        self, breaker: CircuitBreaker, tmp_path: Path
    ) -> None:
        """It makes no difference who connects."""
        engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(tmp_path / "missing" / "db")
        )
        guard_engine(engine, breaker)
        for _ in range(2):
            with pytest.raises(OperationalError):
                select_one(engine)

        assert breaker.is_open

    @pytest.mark.parametrize(
        "refusal",
        [
            pytest.param(lambda: DriverError(sqlstate="XX000"), id="pooler"),
            pytest.param(lambda: DriverError(sqlstate="55000"), id="maintenance"),
            pytest.param(lambda: DriverError(sqlstate="42501"), id="privileges"),
            pytest.param(lambda: DriverError(pgcode="XX000"), id="pgcode"),
            pytest.param(lambda: sqlite3.InterfaceError("refused"), id="no code"),
            pytest.param(
                lambda: ExceptionGroup("hosts", [DriverError(sqlstate="55000")]), id="group"
            ),
        ],
    )
    def test_every_refusal_while_connecting_is_a_failure(
        self,
        make_engine: MakeEngine,
        faults: Faults,
        breaker: CircuitBreaker,
        refusal: Callable[[], Exception],
    ) -> None:
        """A server or pooler that refuses a connection cannot serve, whatever its SQLSTATE."""
        engine = make_engine()
        faults.connect = refusal()
        assert not is_database_failure(faults.connect)
        for expected in (Exception, Exception, CircuitOpenError):
            with pytest.raises(expected):
                select_one(engine)

        assert breaker.total_failures == 2
        assert breaker.in_flight == 0

    def test_refusal_while_replacing_a_lost_connection_is_a_failure(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A ping finds the connection stale, and the pooler refuses a new one."""
        engine = make_engine(pool_pre_ping=True)
        select_one(engine)
        faults.execute_once = [CONNECTION_LOST]
        faults.connect = DriverError(sqlstate="XX000")
        with pytest.raises(DriverError):
            select_one(engine)

        assert breaker.total_failures == 1

    def test_refusal_outside_of_a_checkout_is_only_raised(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A pool that connects ahead of its callers gets the driver's error, and counts nothing."""
        engine = make_engine()
        faults.connect = DriverError(sqlstate="XX000")
        with pytest.raises(DriverError):
            engine.pool._create_connection()

        assert (breaker.total_failures, breaker.in_flight) == (0, 0)

    @pytest.mark.parametrize(
        "error",
        [
            pytest.param(lambda: ValueError("no such option"), id="wrong argument"),
            pytest.param(PoolTimeout, id="pool of the driver"),
            pytest.param(
                lambda: sqlite_error("database is locked", sqlite3.SQLITE_BUSY), id="locked"
            ),
        ],
    )
    def test_fault_of_this_side_while_connecting_is_no_failure(
        self,
        make_engine: MakeEngine,
        faults: Faults,
        breaker: CircuitBreaker,
        error: Callable[[], Exception],
    ) -> None:
        """Without a refusal by the server, a connect is judged like everything else."""
        engine = make_engine()
        faults.connect = error()
        with pytest.raises(type(faults.connect)):
            engine.raw_connection()

        assert breaker.total_failures == 0
        assert breaker.in_flight == 0

    def test_same_error_of_a_statement_is_an_answer(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """Once connected, XX000 is a bug that one statement has met."""
        faults.execute = DriverError(sqlstate="XX000")
        with pytest.raises(DriverError):
            select_one(engine)

        assert breaker.total_failures == 0

    def test_working_connects_do_not_hide_failing_statements(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A proxy in front of a dead database accepts connections, which proves nothing."""
        engine = make_engine(pool_pre_ping=True)
        select_one(engine)
        engine.dispose()
        open_by_faults(engine, faults)

        assert breaker.is_open

    def test_failing_preparations_of_a_connection_are_failures(
        self, make_engine: MakeEngine, breaker: CircuitBreaker
    ) -> None:
        """What drivers and listeners ask on a new connection is a part of the connect."""
        engine = make_engine()

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: Any) -> None:  # noqa: ARG001
            raise DISK_ERROR

        for expected in (OperationalError, OperationalError, CircuitOpenError):
            with pytest.raises(expected):
                select_one(engine)
        assert breaker.total_failures == 2
        assert breaker.in_flight == 0

    def test_failing_commit_is_a_failure(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """COMMIT touches the disk, and counts."""
        faults.commit = DISK_ERROR
        with (
            pytest.raises(OperationalError),
            engine.begin() as connection,
        ):
            connection.execute(SELECT)

        assert breaker.total_failures == 1
        assert breaker.in_flight == 0

    def test_lost_connection_is_a_failure_whatever_is_failure_says(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """The dialect knows by which errors a connection is lost."""
        assert not is_database_failure(CONNECTION_LOST)
        faults.execute = CONNECTION_LOST
        with pytest.raises(ProgrammingError) as raised:
            select_one(engine)

        assert breaker.total_failures == 1
        assert is_database_failure(raised.value)

    def test_rows_that_stop_coming_are_a_failure(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A streaming result may fail after its statement has succeeded."""
        with engine.connect() as connection:
            before = breaker.total_successes
            rows = connection.execution_options(yield_per=1).execute(SELECT)
            faults.fetch = DISK_ERROR
            with pytest.raises(OperationalError):
                rows.fetchmany(5)

        assert breaker.total_successes == before + 1
        assert breaker.total_failures == 1
        assert breaker.in_flight == 0

    def test_rows_that_stop_coming_are_not_counted_without_a_permit(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock
    ) -> None:
        """A half-open circuit whose probes are taken hears of them, and an open one does not."""
        breaker = breaker_of(clock, half_open_max_calls=1)
        engine = make_engine(by=breaker)
        with engine.connect() as connection:
            streams = [connection.execution_options(yield_per=1).execute(SELECT) for _ in range(2)]
            faults.fetch = DISK_ERROR
            half_open(breaker, clock)
            with breaker, pytest.raises(OperationalError):
                streams[0].fetchmany(5)
            breaker.force_open("maintenance")
            rejections = breaker.total_rejections
            with pytest.raises(OperationalError):
                streams[1].fetchmany(5)

        assert breaker.total_failures == 0
        assert breaker.total_rejections == rejections

    def test_row_that_cannot_be_read_is_no_failure(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """An error of a fetch that says nothing about the database counts as nothing."""
        faults.fetch = ValueError("not a date")
        with engine.connect() as connection:
            rows = connection.execution_options(yield_per=1).execute(SELECT)
            with pytest.raises(ValueError, match="not a date"):
                rows.fetchmany(5)

        assert breaker.total_failures == 0


class TestAnswers:
    """What a database that lives does to the circuit."""

    def test_answers_are_neither_success_nor_failure(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """A violated constraint, a missing table and bad SQL say that the database is alive."""
        before = breaker.total_successes
        for statement, expected in (
            ("INSERT INTO paid VALUES (1), (1)", IntegrityError),
            ("SELECT * FROM nowhere", OperationalError),
            ("SELEC", OperationalError),
        ):
            with engine.connect() as connection, pytest.raises(expected):
                connection.execute(text(statement))

        assert breaker.total_failures == 0
        assert breaker.total_successes == before
        assert breaker.in_flight == 0

    def test_locked_database_is_no_failure(
        self, engine: Engine, tmp_path: Path, breaker: CircuitBreaker
    ) -> None:
        """Somebody else writes: the file is fine, and its readers must not be refused."""
        writer = sqlite3.connect(tmp_path / "db")
        writer.execute("BEGIN EXCLUSIVE")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
            with pytest.raises(OperationalError, match="database is locked"):
                connection.execute(text("SELECT * FROM paid"))
        writer.close()

        assert breaker.total_failures == 0

    def test_exhausted_pool_is_no_failure(
        self, make_engine: MakeEngine, breaker: CircuitBreaker, clock: FakeClock
    ) -> None:
        """Our own pool says nothing about the database, in no state of the circuit."""
        engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0)
        with engine.connect():
            with pytest.raises(PoolTimeoutError):
                engine.connect()
            half_open(breaker, clock)
            with pytest.raises(PoolTimeoutError):
                engine.connect()
            assert breaker.is_half_open

        assert breaker.total_failures == 0
        assert breaker.in_flight == 0

    def test_time_in_the_queue_of_the_pool_is_not_the_database_s(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """A call is slow by the time that it takes once there is a place for its connection."""

        class SlowQueue(QueuePool):
            def _do_get(self) -> Any:
                clock.advance(5.0)
                return super()._do_get()

        breaker = breaker_of(clock, slow_call_duration=1.0)
        assert select_one(make_engine(by=breaker, poolclass=SlowQueue)) == 1

        assert breaker.total_failures == 0

    def test_way_back_to_a_savepoint_is_no_success(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """It follows failures, and must not make them forgotten."""
        with engine.connect() as connection:
            savepoint = connection.begin_nested()
            before = breaker.total_successes
            savepoint.rollback()

        assert breaker.total_successes == before

    def test_statements_and_commits_are_successes(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """One each; connecting and rolling back count as nothing."""
        listener = RecordingListener()
        engine = make_engine(by=breaker_of(clock, listeners=[listener]))
        with engine.connect() as connection:
            assert listener.events == []
            connection.execute(SELECT)
            connection.execute(text("SELECT :a"), [{"a": 1}])
            connection.commit()
            connection.rollback()

        assert listener.events == [CallSucceeded("db", 0.0)] * 3

    def test_many_rows_at_once_are_one_statement(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """The driver's `executemany` is guarded like `execute`."""
        before = breaker.total_successes
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO paid VALUES (:id)"), [{"id": 1}, {"id": 2}])
            connection.execution_options(no_parameters=True).execute(SELECT)

        assert breaker.total_successes == before + 2

    def test_ping_that_finds_a_stale_connection_is_no_failure(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """Pings are there to find what went stale in the pool; it is replaced."""
        engine = make_engine(pool_pre_ping=True)
        select_one(engine)
        faults.execute_once = [CONNECTION_LOST]

        assert select_one(engine) == 1
        assert breaker.total_failures == 0
        assert breaker.in_flight == 0

    def test_ping_that_fails_otherwise_is_a_failure(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """The connection is there, and the database does not work."""
        engine = make_engine(pool_pre_ping=True)
        select_one(engine)
        faults.execute_once = [DISK_ERROR]

        with pytest.raises(OperationalError):
            select_one(engine)
        assert breaker.total_failures == 1
        assert breaker.in_flight == 0


class TestOpen:
    """What can and cannot be done while the circuit is open."""

    def test_transaction_may_end(self, engine: Engine, breaker: CircuitBreaker) -> None:
        """COMMIT is let through, so that no work is lost that is done already."""
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO paid VALUES (1)"))
            breaker.force_open("maintenance")

        breaker.disable("to look at the outcome")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id FROM paid")).scalars().all() == [1]

    def test_refused_statement_rolls_its_savepoint_back(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """What is caught around a savepoint must have undone it, or the rest is wrong."""
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO paid VALUES (1)"))
            savepoint = connection.begin_nested()
            connection.execute(text("INSERT INTO paid VALUES (2)"))
            breaker.force_open("maintenance")
            with pytest.raises(CircuitOpenError):
                connection.execute(text("INSERT INTO paid VALUES (3)"))
            savepoint.rollback()

        breaker.disable("to look at the outcome")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id FROM paid")).scalars().all() == [1]

    def test_savepoint_may_be_released(self, engine: Engine, breaker: CircuitBreaker) -> None:
        """RELEASE belongs to what ends a transaction."""
        with engine.begin() as connection, connection.begin_nested():
            connection.execute(text("INSERT INTO paid VALUES (1)"))
            breaker.force_open("maintenance")

        breaker.disable("to look at the outcome")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id FROM paid")).scalars().all() == [1]

    def test_commit_is_not_refused_by_a_circuit_that_opens_meanwhile(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """Another thread may open it between a look at its state and the admission."""

        class SeenClosed(CircuitBreaker):
            @property
            def is_closed(self) -> bool:
                return True

        breaker = SeenClosed("db", clock=clock, registry=None)
        engine = make_engine(by=breaker)
        with engine.connect() as connection:
            connection.execute(SELECT)
            breaker.force_open("maintenance")
            connection.commit()

    def test_refusal_while_replacing_a_lost_connection_is_not_wrapped(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """`except CircuitOpenError` holds there, too, where SQLAlchemy wraps other errors."""
        with engine.connect() as connection:
            faults.execute = CONNECTION_LOST
            with pytest.raises(DBAPIError):
                connection.execute(SELECT)
            connection.rollback()
            breaker.force_open("maintenance")
            with pytest.raises(CircuitOpenError) as raised:
                connection.execute(SELECT)

        assert raised.value.breaker_name == "db"

    def test_refusals_leave_the_pool_as_it_was(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker, clock: FakeClock
    ) -> None:
        """No connection is lost to them, taken out or invalidated."""
        open_by_faults(engine, faults)
        pool = cast("Any", engine.pool)
        before = pool.checkedin(), pool.checkedout()
        for _ in range(50):
            with pytest.raises(CircuitOpenError):
                select_one(engine)
        assert (pool.checkedin(), pool.checkedout()) == before

        clock.advance(10.0)
        faults.connect = AssertionError("a new connection is not needed")
        assert select_one(engine) == 1
        assert breaker.is_closed

    def test_refused_session_can_be_used_again(
        self, engine: Engine, faults: Faults, clock: FakeClock
    ) -> None:
        """Like after any other error, once it is rolled back."""
        with Session(engine) as session:
            session.execute(SELECT)
            open_by_faults(engine, faults)
            with pytest.raises(CircuitOpenError):
                session.execute(SELECT)
            session.rollback()
            clock.advance(10.0)
            assert session.execute(SELECT).scalar_one() == 1

    def test_replaced_pool_is_guarded(self, engine: Engine, breaker: CircuitBreaker) -> None:
        """`dispose()` gives the engine another pool, under the same guard."""
        engine.dispose()
        breaker.force_open("maintenance")

        with pytest.raises(CircuitOpenError):
            engine.connect()


class TestHalfOpen:
    """What probes may do."""

    def test_first_connect_of_an_engine_is_one_probe(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """What is asked of the database in the course of it needs no second permit."""
        breaker = breaker_of(clock, half_open_max_calls=1)
        engine = make_engine(by=breaker)
        seen = []

        @event.listens_for(engine, "connect")
        def ask(connection: Any, record: Any) -> None:  # noqa: ARG001
            assert engine.dialect.do_ping(connection)
            seen.append(breaker.in_flight)

        half_open(breaker, clock)
        assert select_one(engine) == 1

        assert seen == [1]
        assert breaker.is_closed
        assert breaker.in_flight == 0

    def test_connect_may_use_another_guarded_engine(
        self, make_engine: MakeEngine, breaker: CircuitBreaker, clock: FakeClock
    ) -> None:
        """What follows in the connect is a part of it still."""
        probing = breaker_of(clock, half_open_max_calls=1)
        engine, other = make_engine(by=probing), make_engine()

        @event.listens_for(engine, "connect")
        def look_up(connection: Any, record: Any) -> None:  # noqa: ARG001
            select_one(other)
            context = SimpleNamespace(root_connection=SimpleNamespace(connection=connection))
            engine.dialect.do_execute(connection.cursor(), "SELECT 1", (), cast("Any", context))

        half_open(probing, clock)

        assert select_one(engine) == 1
        assert breaker.total_successes == 1

    def test_context_copied_from_a_probe_is_guarded(
        self, make_engine: MakeEngine, breaker: CircuitBreaker, clock: FakeClock
    ) -> None:
        """A task that a connect leaves behind does not pass for a part of it for ever."""
        engine = make_engine()
        contexts = []

        @event.listens_for(engine, "connect")
        def keep(connection: Any, record: Any) -> None:  # noqa: ARG001
            contexts.append(contextvars.copy_context())

        half_open(breaker, clock)
        select_one(engine)
        breaker.force_open("maintenance")

        with pytest.raises(CircuitOpenError):
            contexts[0].run(select_one, engine)


class TestWaysOut:
    """No way out of a guarded call keeps its permit."""

    async def test_cancelled_statement_is_neutral(
        self, async_engine: AsyncEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A client that hangs up says nothing about the database."""
        async with AsyncSession(async_engine) as session:
            await session.execute(SELECT)
            go_on = threading.Event()
            faults.before_execute = go_on.wait
            task = asyncio.create_task(session.execute(SELECT))
            async with asyncio.timeout(10.0):
                while not breaker.in_flight:  # noqa: ASYNC110 - Nothing tells of it.
                    await asyncio.sleep(0)
            task.cancel()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task

        assert breaker.in_flight == 0
        assert breaker.total_failures == 0

    def test_forgotten_statement_is_neutral(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A greenlet that is dropped half-way, as with its event loop, gives the permit back."""
        faults.before_execute = greenlet.getcurrent().switch
        statement = greenlet.greenlet(select_one)
        statement.switch(engine)
        assert breaker.in_flight == 1
        del statement
        gc.collect()

        assert breaker.in_flight == 0
        assert breaker.total_failures == 0

    async def test_async_engine_is_guarded(
        self, async_engine: AsyncEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """It fails, opens and refuses like a synchronous one."""
        faults.execute = DISK_ERROR
        for expected in (OperationalError, OperationalError, CircuitOpenError):
            async with AsyncSession(async_engine) as session:
                with pytest.raises(expected):
                    await session.execute(SELECT)

        assert breaker.in_flight == 0

    def test_rule_that_raises_gives_the_permit_back(
        self, breaker: CircuitBreaker, tmp_path: Path
    ) -> None:
        """A broken `is_failure` is heard of, and keeps nothing."""

        def broken(error: Exception) -> bool:
            raise LookupError(error)

        engine = create_engine(f"sqlite:///{tmp_path}/missing/db")
        guard_engine(engine, breaker, is_failure=broken)
        with pytest.raises(LookupError):
            engine.connect()

        assert breaker.in_flight == 0

    def test_slow_statement_counts_while_it_runs(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock
    ) -> None:
        """A database that hangs opens the circuit before anything has ended."""
        breaker = breaker_of(clock, failure_threshold=1, slow_call_duration=1.0)
        engine = make_engine(by=breaker)
        select_one(engine)
        began, go_on = threading.Event(), threading.Event()

        def hang() -> None:
            began.set()
            go_on.wait()

        faults.before_execute = hang
        thread = threading.Thread(target=select_one, args=(engine,))
        thread.start()
        assert began.wait(10.0)
        clock.advance(1.0)
        assert breaker.is_open
        with pytest.raises(CircuitOpenError):
            select_one(engine)
        go_on.set()
        thread.join()

        assert breaker.in_flight == 0


class TestGuarding:
    """How an engine gets its guard."""

    def test_engine_is_guarded_once(self, engine: Engine, breaker: CircuitBreaker) -> None:
        """Two guards would count everything twice."""
        with pytest.raises(ValueError, match="guarded already"):
            guard_engine(engine, breaker)

    def test_two_engines_may_share_a_breaker(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock
    ) -> None:
        """One database with two engines, say for two isolation levels, is one dependency."""
        breaker = breaker_of(clock)
        engines = make_engine(by=breaker), make_engine(by=breaker)
        faults.execute = DISK_ERROR
        for engine in engines:
            with pytest.raises(OperationalError):
                select_one(engine)

        assert breaker.is_open

    def test_options_of_an_engine_share_its_guard(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """`execution_options()` is another view of the same engine."""
        breaker.force_open("maintenance")
        with pytest.raises(CircuitOpenError):
            engine.execution_options(isolation_level="AUTOCOMMIT").connect()

    def test_breaker_hears_the_driver_s_errors(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock
    ) -> None:
        """Its own rules about exceptions, meant for SQLAlchemy's classes perhaps, play no part."""
        listener = RecordingListener()
        breaker = breaker_of(
            clock, expected_exception=InterfaceError, failure_threshold=1, listeners=[listener]
        )
        engine = make_engine(by=breaker)
        faults.execute = DISK_ERROR
        for expected in (OperationalError, CircuitOpenError):
            with pytest.raises(expected):
                select_one(engine)

        kinds = [type(one) for one in listener.events]
        assert kinds.count(CallFailed) == kinds.count(CallRejected) == 1

    def test_synchronous_engines_need_no_greenlet(self) -> None:
        """What asynchronous engines are made of is an optional part of SQLAlchemy."""
        program = (
            "import sys; sys.modules['greenlet'] = None\n"
            "from sqlalchemy import create_engine, text\n"
            "from example_service.infra.resilience import CircuitBreaker\n"
            "from example_service.infra.resilience.sqlalchemy import guard_engine\n"
            "engine = create_engine('sqlite://')\n"
            "guard_engine(engine, CircuitBreaker('db'))\n"
            "print(engine.connect().execute(text('SELECT 1')).scalar_one())\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert ended.stdout == "1\n"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        InheritedOperationalError(),
        DISK_ERROR,
        sqlite_error("unable to open database file", sqlite3.SQLITE_CANTOPEN),
        sqlite_error("database or disk is full", sqlite3.SQLITE_FULL),
        *(
            DriverError(sqlstate=state)
            for state in ("08003", "08006", "28P01", "3D000", "53100", "53300", "57P01", "57P03")
        ),
        cancelled("canceling statement due to statement timeout"),
        cancelled("<class 'X'>: canceling statement due to lock timeout"),
        cancelled("query execution canceled due to statement timeout"),
        DriverError("canceling statement due to statement timeout\nCONTEXT: f()", pgcode="57014"),
        DriverError(sqlstate="58030"),
        DriverError(pgcode="08006"),
        OperationalError("SELECT 1", {}, DISK_ERROR),
        InterfaceError("SELECT 1", {}, DriverError(), connection_invalidated=True),
        ExceptionGroup("hosts", [ValueError(), ConnectionRefusedError()]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [DISK_ERROR])]),
        BaseExceptionGroup("cancelled", [asyncio.CancelledError(), DISK_ERROR]),
    ],
    ids=repr,
)
def test_database_failure(error: BaseException) -> None:
    """The database could not be reached, gave up waiting, or says that it cannot work."""
    assert is_database_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        PoolTimeoutError("QueuePool limit reached"),
        PoolTimeout(),
        FreeConnectionTimeout(),
        OperationalError("SELECT 1", {}, PoolTimeout()),
        cancelled("canceling statement due to user request"),
        cancelled("canceling statement due to user request\nCONTEXT: reset_statement_timeout()"),
        cancelled("query execution canceled"),
        ExceptionGroup("answers", [ValueError(), DriverError(sqlstate="23505")]),
        BaseExceptionGroup("cancelled", [asyncio.CancelledError()]),
        sqlite3.IntegrityError("UNIQUE constraint failed"),
        sqlite_error("no such table", sqlite3.SQLITE_ERROR),
        sqlite_error("database is locked", sqlite3.SQLITE_BUSY),
        sqlite_error("database table is locked", sqlite3.SQLITE_LOCKED_SHAREDCACHE),
        *(
            DriverError(sqlstate=state)
            for state in ("23505", "22012", "25P02", "40001", "40P01", "42501", "42P01", "55P03")
        ),
        IntegrityError("INSERT", {}, DriverError(sqlstate="23505")),
        StatementError("wrong", "SELECT 1", {}, None),
        StatementError("wrong", "SELECT 1", {}, ValueError()),
        InterfaceError("SELECT 1", {}, DriverError()),
    ],
    ids=repr,
)
def test_no_database_failure(error: BaseException) -> None:
    """The database has answered, or was never asked."""
    assert not is_database_failure(error)


def test_rule_for_a_block_of_one_s_own(clock: FakeClock) -> None:
    """`is_failure=is_database_failure` tells failures from answers around an unguarded engine."""
    breaker = breaker_of(clock, failure_threshold=1, is_failure=is_database_failure)
    engine = create_engine("sqlite:////missing/db")
    with pytest.raises(IntegrityError), breaker:
        raise IntegrityError("INSERT", {}, DriverError(sqlstate="23505"))
    assert breaker.is_closed

    with pytest.raises(OperationalError), breaker:
        select_one(engine)
    assert breaker.is_open


def test_admission_can_be_asked_for_without_using_it(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    """A circuit that admits counts nothing and keeps its probes; one that refuses, a rejection."""
    ask_admission(breaker)
    breaker.force_open("a test", seconds=10.0)
    with pytest.raises(CircuitOpenError):
        ask_admission(breaker)
    clock.advance(10.0)
    for _ in range(10):
        ask_admission(breaker)

    assert breaker.is_half_open
    assert (breaker.in_flight, breaker.total_rejections, breaker.total_successes) == (0, 1, 0)
