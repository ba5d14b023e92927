"""Which errors count as failures of the database."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import (
    OperationalError,
    ProgrammingError,
)

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitOpenError,
)
from example_service.infra.resilience.sqlalchemy import (
    guard_engine,
    is_database_failure,
)
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience_integrations.sqlalchemy.faulty_engine import (
    CONNECTION_LOST,
    DISK_ERROR,
    SELECT,
    DriverError,
    Faults,
    MakeEngine,
    PoolTimeout,
    breaker_of,
    half_open,
    open_by_faults,
    select_one,
    sqlite_error,
)


class TestFailures:
    """How failures of the database affect the circuit."""

    def test_failing_statements_open_the_circuit(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """Each failed statement counts once; afterwards, a refused statement is never sent."""
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
        """An unreachable database is noticed at the connect, and so is its return."""
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
        """It does not matter which function connects."""
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
        """A server or pooler that refuses connections is unavailable, whatever its SQLSTATE."""
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
        """A ping finds a stale connection, and the pooler refuses a new one."""
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
        """A pool that connects in advance gets the driver's error, and nothing is counted."""
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
    def test_a_local_error_while_connecting_is_not_a_failure(
        self,
        make_engine: MakeEngine,
        faults: Faults,
        breaker: CircuitBreaker,
        error: Callable[[], Exception],
    ) -> None:
        """Without a refusal by the server, the usual rules apply to errors of a connect."""
        engine = make_engine()
        faults.connect = error()
        with pytest.raises(type(faults.connect)):
            engine.raw_connection()

        assert breaker.total_failures == 0
        assert breaker.in_flight == 0

    def test_same_error_of_a_statement_is_an_answer(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """On an open connection, XX000 is a bug that affects one statement."""
        faults.execute = DriverError(sqlstate="XX000")
        with pytest.raises(DriverError):
            select_one(engine)

        assert breaker.total_failures == 0

    def test_working_connects_do_not_hide_failing_statements(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A proxy in front of a dead database may accept connections."""
        engine = make_engine(pool_pre_ping=True)
        select_one(engine)
        engine.dispose()
        open_by_faults(engine, faults)

        assert breaker.is_open

    def test_failing_preparations_of_a_connection_are_failures(
        self, make_engine: MakeEngine, breaker: CircuitBreaker
    ) -> None:
        """Queries of drivers and listeners on a new connection are part of the connect."""
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
        """COMMIT writes to the disk, and so it counts."""
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
        """The dialect knows which errors mean a lost connection."""
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
        """A half-open circuit without free probes counts them, and an open one does not."""
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

    def test_row_that_cannot_be_read_is_not_a_failure(
        self, engine: Engine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A fetch error that says nothing about the database is neutral."""
        faults.fetch = ValueError("not a date")
        with engine.connect() as connection:
            rows = connection.execution_options(yield_per=1).execute(SELECT)
            with pytest.raises(ValueError, match="not a date"):
                rows.fetchmany(5)

        assert breaker.total_failures == 0
