"""Which outcomes show that the database works, and which say nothing about it."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import (
    IntegrityError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from example_service.infra.resilience import (
    CallSucceeded,
    CircuitBreaker,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience_integrations.sqlalchemy.faulty_engine import (
    CONNECTION_LOST,
    DISK_ERROR,
    SELECT,
    Faults,
    MakeEngine,
    breaker_of,
    half_open,
    select_one,
)


class TestAnswers:
    """How answers of a working database affect the circuit."""

    def test_answers_are_neither_success_nor_failure(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """Violated constraints, missing tables and invalid SQL do not count at all."""
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

    def test_locked_database_is_not_a_failure(
        self, engine: Engine, tmp_path: Path, breaker: CircuitBreaker
    ) -> None:
        """Another connection is writing; the file works, and readers must not be refused."""
        writer = sqlite3.connect(tmp_path / "db")
        writer.execute("BEGIN EXCLUSIVE")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
            with pytest.raises(OperationalError, match="database is locked"):
                connection.execute(text("SELECT * FROM paid"))
        writer.close()

        assert breaker.total_failures == 0

    def test_exhausted_pool_is_not_a_failure(
        self, make_engine: MakeEngine, breaker: CircuitBreaker, clock: FakeClock
    ) -> None:
        """The pool says nothing about the database, in any state of the circuit."""
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

    def test_time_spent_waiting_for_the_pool_does_not_count(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """Only the time after the pool has a free connection counts for slow calls."""

        class SlowQueue(QueuePool):
            def _do_get(self) -> Any:
                clock.advance(5.0)
                return super()._do_get()

        breaker = breaker_of(clock, slow_call_duration=1.0)
        assert select_one(make_engine(by=breaker, poolclass=SlowQueue)) == 1

        assert breaker.total_failures == 0

    def test_return_to_a_savepoint_is_not_a_success(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """It follows failures, and must not reset their count."""
        with engine.connect() as connection:
            savepoint = connection.begin_nested()
            before = breaker.total_successes
            savepoint.rollback()

        assert breaker.total_successes == before

    def test_statements_and_commits_are_successes(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """Each counts once; connecting and rolling back do not count."""
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

    def test_ping_that_finds_a_stale_connection_is_not_a_failure(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """Pings are meant to find stale connections, which the pool replaces."""
        engine = make_engine(pool_pre_ping=True)
        select_one(engine)
        faults.execute_once = [CONNECTION_LOST]

        assert select_one(engine) == 1
        assert breaker.total_failures == 0
        assert breaker.in_flight == 0

    def test_ping_that_fails_otherwise_is_a_failure(
        self, make_engine: MakeEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """The connection exists, but the database does not work."""
        engine = make_engine(pool_pre_ping=True)
        select_one(engine)
        faults.execute_once = [DISK_ERROR]

        with pytest.raises(OperationalError):
            select_one(engine)
        assert breaker.total_failures == 1
        assert breaker.in_flight == 0
