"""Guarding an engine: only once, for every kind of use, and without losing permits."""

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path

import greenlet  # type: ignore[import-untyped]
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import (
    InterfaceError,
    OperationalError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CircuitBreaker,
    CircuitOpenError,
)
from example_service.infra.resilience.sqlalchemy import (
    guard_engine,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience_integrations.sqlalchemy.faulty_engine import (
    DISK_ERROR,
    SELECT,
    Faults,
    MakeEngine,
    breaker_of,
    half_open,
    select_one,
)


class TestEndsOfCalls:
    """Every end of a guarded call returns its permit."""

    async def test_cancelled_statement_is_neutral(
        self, async_engine: AsyncEngine, faults: Faults, breaker: CircuitBreaker
    ) -> None:
        """A client that disconnects says nothing about the database."""
        async with AsyncSession(async_engine) as session:
            await session.execute(SELECT)
            go_on = threading.Event()
            faults.before_execute = go_on.wait
            task = asyncio.create_task(session.execute(SELECT))
            async with asyncio.timeout(60.0):
                while not breaker.in_flight:  # noqa: ASYNC110 - There is no event.
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
        """A greenlet that is dropped half-way, for example with its loop, returns its permit."""
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
        """The error of a broken `is_failure` is raised, and no permit is lost."""

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
        """A hanging database opens the circuit before any statement ends."""
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
        assert began.wait(60.0)
        clock.advance(1.0)
        assert breaker.is_open
        with pytest.raises(CircuitOpenError):
            select_one(engine)
        go_on.set()
        thread.join()
        thread.join()

        assert breaker.in_flight == 0


class TestGuarding:
    """How an engine is guarded."""

    def test_engine_is_guarded_once(self, engine: Engine, breaker: CircuitBreaker) -> None:
        """Two guards would count everything twice."""
        with pytest.raises(ValueError, match="already guarded"):
            guard_engine(engine, breaker)

    def test_two_engines_may_share_a_breaker(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock
    ) -> None:
        """Two engines for one database, such as for two isolation levels, are one dependency."""
        breaker = breaker_of(clock)
        engines = make_engine(by=breaker), make_engine(by=breaker)
        faults.execute = DISK_ERROR
        for engine in engines:
            with pytest.raises(OperationalError):
                select_one(engine)

        assert breaker.is_open

    @pytest.mark.parametrize("fault", ["connect", "execute", "fetch"])
    def test_guarded_function_around_it_adds_no_failure(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock, fault: str
    ) -> None:
        """It is one call through one breaker, even if its error is translated."""
        breaker = breaker_of(clock, failure_threshold=9, expected_exception=Exception)
        engine = make_engine(by=breaker)
        setattr(faults, fault, DISK_ERROR)

        @breaker.protected
        def find() -> None:
            try:
                with engine.connect() as connection:
                    connection.execute(SELECT).fetchmany()
            except OperationalError as error:
                raise LookupError from error

        for failures in (1, 2, 3):
            with pytest.raises(LookupError):
                find()
            assert breaker.total_failures == failures

    @pytest.mark.parametrize("fault", ["connect", "execute", "fetch"])
    def test_failure_inside_a_guarded_probe_is_that_of_the_probe(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock, fault: str
    ) -> None:
        """The engine leaves it to the guard around it."""
        breaker = breaker_of(clock, expected_exception=OperationalError, success_threshold=2)
        engine = make_engine(by=breaker)
        setattr(faults, fault, DISK_ERROR)
        half_open(breaker, clock)
        with breaker, pytest.raises(OperationalError) as handled:
            engine.connect().execute(SELECT).fetchmany()
        assert (breaker.total_failures, breaker.is_half_open) == (0, True)
        with pytest.raises(OperationalError), breaker:
            engine.connect().execute(SELECT).fetchmany()
        assert (breaker.total_failures, breaker.is_open) == (1, True)
        assert handled.value.orig is DISK_ERROR

    def test_options_of_an_engine_share_its_guard(
        self, engine: Engine, breaker: CircuitBreaker
    ) -> None:
        """`execution_options()` returns a view of the same engine."""
        breaker.force_open("maintenance")
        with pytest.raises(CircuitOpenError):
            engine.execution_options(isolation_level="AUTOCOMMIT").connect()

    def test_the_breaker_sees_the_errors_of_the_driver(
        self, make_engine: MakeEngine, faults: Faults, clock: FakeClock
    ) -> None:
        """Its own exception rules, perhaps meant for SQLAlchemy's classes, do not apply."""
        listener = RecordingListener()
        breaker = breaker_of(
            clock, expected_exception=InterfaceError, failure_threshold=1, listeners=[listener]
        )
        engine = make_engine(by=breaker)
        faults.execute = DISK_ERROR
        for expected in (OperationalError, CircuitOpenError):
            with pytest.raises(expected):
                select_one(engine)

        kinds = [type(event) for event in listener.events]
        assert kinds.count(CallFailed) == kinds.count(CallRejected) == 1

    def test_synchronous_engines_need_no_greenlet(self) -> None:
        """Greenlet, which asynchronous engines need, is an optional dependency of SQLAlchemy."""
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
