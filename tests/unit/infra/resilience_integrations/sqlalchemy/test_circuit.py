"""How an open and a half-open circuit affect an engine."""

import contextvars
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import (
    DBAPIError,
)
from sqlalchemy.orm import Session

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitOpenError,
)
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience_integrations.sqlalchemy.faulty_engine import (
    CONNECTION_LOST,
    SELECT,
    Faults,
    MakeEngine,
    breaker_of,
    half_open,
    open_by_faults,
    select_one,
)


class TestOpen:
    """What is allowed while the circuit is open."""

    def test_transaction_may_end(self, engine: Engine, breaker: CircuitBreaker) -> None:
        """COMMIT is admitted, so that finished work is not lost."""
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO paid VALUES (1)"))
            breaker.force_open("maintenance")

        breaker.disable("to look at the outcome")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id FROM paid")).scalars().all() == [1]

    def test_refused_statement_rolls_its_savepoint_back(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """Code that catches the error around a savepoint relies on its changes being undone."""
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
        """RELEASE is one of the statements that end a transaction."""
        with engine.begin() as connection, connection.begin_nested():
            connection.execute(text("INSERT INTO paid VALUES (1)"))
            breaker.force_open("maintenance")

        breaker.disable("to look at the outcome")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id FROM paid")).scalars().all() == [1]

    def test_commit_is_not_refused_by_a_circuit_that_opens_meanwhile(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """Another thread may open it between the check of its state and the admission."""

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
        """`except CircuitOpenError` works there as well, where SQLAlchemy wraps other errors."""
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
        """Refusals do not lose, check out or invalidate a connection."""
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
        """It can be used after a rollback, like after any other error."""
        with Session(engine) as session:
            session.execute(SELECT)
            open_by_faults(engine, faults)
            with pytest.raises(CircuitOpenError):
                session.execute(SELECT)
            session.rollback()
            clock.advance(10.0)
            assert session.execute(SELECT).scalar_one() == 1

    def test_replaced_pool_is_guarded(self, engine: Engine, breaker: CircuitBreaker) -> None:
        """`dispose()` gives the engine a new pool with the same guard."""
        engine.dispose()
        breaker.force_open("maintenance")

        with pytest.raises(CircuitOpenError):
            engine.connect()


class TestHalfOpen:
    """How probes work."""

    def test_first_connect_of_an_engine_is_one_probe(
        self, make_engine: MakeEngine, clock: FakeClock
    ) -> None:
        """Queries during the connect need no second permit."""
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
        """Further queries of the connect are still part of it."""
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
        """A task started during a connect does not remain part of it forever."""
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
