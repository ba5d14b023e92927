"""A guarded engine with a real PostgreSQL that dies, hangs and comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import pytest
from asyncpg import PostgresError
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.sqlalchemy import guard_engine, is_database_failure
from example_service.infra.resilience.testing import FakeClock
from tests.postgres import PostgresServer, running_postgres
from tests.service_process import DEADLINE_SECONDS
from tests.tcp_proxy import TCPProxy

pytestmark = pytest.mark.integration

# The limit for "at once" on a busy machine; waiting for a connection of the pool takes up to 30 s.
AT_ONCE_SECONDS = 10.0

GuardedEngine: TypeAlias = Callable[..., tuple[AsyncEngine, CircuitBreaker]]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """The server of this module."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(server: PostgresServer) -> PostgresServer:
    """The server, running again if the previous test stopped it."""
    if not server.is_running:
        server.start()
    return server


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[TCPProxy]:
    """A proxy to the server that can fall silent."""
    async with TCPProxy(postgres.port).listening() as proxy:
        yield proxy


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


@pytest.fixture
async def guarded_engine(
    postgres: PostgresServer, clock: FakeClock
) -> AsyncIterator[GuardedEngine]:
    """Create engines over asyncpg with their breakers, and dispose of them afterwards."""
    engines = []

    def make(
        *,
        port: int = postgres.port,
        database: str | None = None,
        options: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> tuple[AsyncEngine, CircuitBreaker]:
        # None keeps the database of the URL.
        url = make_url(postgres.url_at(port)).set(
            drivername="postgresql+asyncpg", database=database
        )
        engine = create_async_engine(url, **(options or {}))
        engines.append(engine)
        parameters = {"failure_threshold": 3, "success_threshold": 1, **parameters}
        breaker = CircuitBreaker(
            "database", recovery_timeout=10.0, clock=clock, registry=None, **parameters
        )
        guard_engine(engine, breaker)
        return engine, breaker

    yield make
    for engine in engines:
        await engine.dispose()


async def one(engine: AsyncEngine) -> int:
    """Select the number one."""
    async with AsyncSession(engine) as session:
        number: int = (await session.execute(text("SELECT 1"))).scalar_one()
        return number


async def in_flight(breaker: CircuitBreaker, calls: int) -> None:
    """Wait until that many calls are running."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while breaker.in_flight < calls:  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0)


async def fail(engine: AsyncEngine, times: int) -> None:
    """Query a database that is down."""
    for _ in range(times):
        with pytest.raises((DBAPIError, OSError)) as raised:
            await one(engine)
        assert is_database_failure(raised.value)


@pytest.mark.parametrize("pre_ping", [False, True])
async def test_crash_opens_the_circuit_and_a_restart_closes_it(
    postgres: PostgresServer, clock: FakeClock, pre_ping: bool, guarded_engine: GuardedEngine
) -> None:
    """After three failures calls are refused, and the same engine recovers."""
    engine, breaker = guarded_engine(options={"pool_pre_ping": pre_ping})
    assert await one(engine) == 1

    postgres.crash()
    await fail(engine, times=3)
    assert breaker.is_open

    async with asyncio.timeout(AT_ONCE_SECONDS):
        for _ in range(20):
            with pytest.raises(CircuitOpenError):
                await one(engine)

    postgres.start()
    clock.advance(10.0)
    assert await one(engine) == 1
    assert breaker.is_closed
    assert breaker.in_flight == 0


async def test_first_connect_may_be_the_only_probe(
    postgres: PostgresServer, clock: FakeClock, guarded_engine: GuardedEngine
) -> None:
    """A service that starts before its database recovers on its first connect."""
    engine, breaker = guarded_engine(half_open_max_calls=1)
    postgres.crash()
    await fail(engine, times=3)

    postgres.start()
    clock.advance(10.0)

    assert await one(engine) == 1
    assert breaker.is_closed


async def test_errors_from_a_working_database_open_nothing(guarded_engine: GuardedEngine) -> None:
    """Violated constraints, wrong values, lock conflicts and bad SQL are not failures."""
    engine, breaker = guarded_engine(failure_threshold=1)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMP TABLE paid (id int PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO paid VALUES (1)"))
        with pytest.raises(IntegrityError):
            async with connection.begin_nested():
                await connection.execute(text("INSERT INTO paid VALUES (1)"))
        for wrong in ("SELECT 1/0", "SELEC", "SELECT * FROM nowhere", "SELECT 'x'::int"):
            with pytest.raises(DBAPIError):
                async with connection.begin_nested():
                    await connection.execute(text(wrong))
        with pytest.raises(DBAPIError):
            async with connection.begin_nested():
                await connection.execute(
                    text("INSERT INTO paid VALUES (:id)"), {"id": "not a number"}
                )
        assert (await connection.execute(text("SELECT id FROM paid"))).scalars().all() == [1]

    assert breaker.is_closed
    assert breaker.total_failures == 0


async def test_statement_timeout_of_the_server_is_a_failure(guarded_engine: GuardedEngine) -> None:
    """A database too slow to finish a statement did not serve it."""
    engine, breaker = guarded_engine(failure_threshold=1)
    async with engine.connect() as connection:
        await connection.execute(text("SET statement_timeout = 20"))
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT pg_sleep(30)"))

    assert breaker.is_open


async def test_cancelled_by_a_user_is_not_a_failure(guarded_engine: GuardedEngine) -> None:
    """A statement cancelled by an operator has the same SQLSTATE as a timeout."""
    engine, breaker = guarded_engine(failure_threshold=1)
    cancel_self = text("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(30)")
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(cancel_self)

    assert getattr(raised.value.orig, "sqlstate", None) == "57014"
    assert breaker.total_failures == 0
    assert breaker.in_flight == 0


async def test_database_under_maintenance_is_a_failure(
    guarded_engine: GuardedEngine, postgres: PostgresServer
) -> None:
    """A database that accepts no connections (55000) opens the circuit."""
    admin = create_async_engine(
        make_url(postgres.url_at(postgres.port)).set(drivername="postgresql+asyncpg"),
        isolation_level="AUTOCOMMIT",
    )
    async with admin.connect() as connection:
        await connection.execute(text("CREATE DATABASE closed ALLOW_CONNECTIONS false"))
    await admin.dispose()
    engine, breaker = guarded_engine(failure_threshold=2, database="closed")

    for _ in range(2):
        with pytest.raises(DBAPIError, match="not currently accepting connections"):
            await one(engine)
    with pytest.raises(CircuitOpenError):
        await one(engine)
    assert breaker.total_failures == 2


async def test_commit_of_a_dead_database_is_a_failure(
    postgres: PostgresServer, guarded_engine: GuardedEngine
) -> None:
    """The COMMIT notices a server that died after the last statement."""
    engine, breaker = guarded_engine(failure_threshold=1)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        postgres.crash()
        with pytest.raises((DBAPIError, OSError)):
            await connection.commit()
    assert breaker.is_open


async def test_stream_that_breaks_off_is_a_failure(
    postgres: PostgresServer, guarded_engine: GuardedEngine
) -> None:
    """Rows that stop arriving count, even if the statement itself succeeded."""
    engine, breaker = guarded_engine(failure_threshold=1)
    async with engine.connect() as connection:
        rows = await connection.stream(text("SELECT generate_series(1, 1000000)"))
        assert await anext(rows) == (1,)
        postgres.crash()
        with pytest.raises(PostgresError) as raised:
            await rows.all()
        await connection.invalidate()

    assert is_database_failure(raised.value)
    assert breaker.is_open
    assert breaker.in_flight == 0


async def test_silent_database_opens_the_circuit_while_calls_hang(
    proxy: TCPProxy, clock: FakeClock, guarded_engine: GuardedEngine
) -> None:
    """Slow calls count while they run, and no call queues for their connections."""
    engine, breaker = guarded_engine(
        port=proxy.port, options={"pool_size": 3, "max_overflow": 0}, slow_call_duration=1.0
    )
    assert await asyncio.gather(*(one(engine) for _ in range(3))) == [1, 1, 1]
    proxy.fall_silent()
    hanging = [asyncio.create_task(one(engine)) for _ in range(3)]
    await in_flight(breaker, 3)
    clock.advance(1.0)
    assert breaker.is_open

    async with asyncio.timeout(AT_ONCE_SECONDS):
        for _ in range(20):
            with pytest.raises(CircuitOpenError):
                await one(engine)

    proxy.speak()
    assert await asyncio.gather(*hanging) == [1, 1, 1]
    clock.advance(10.0)
    assert await one(engine) == 1
    assert breaker.is_closed
    assert breaker.in_flight == 0


async def test_probes_that_queue_for_hanging_connections_keep_others_out(
    proxy: TCPProxy, clock: FakeClock, guarded_engine: GuardedEngine
) -> None:
    """A half-open circuit admits only its probes, even if they wait for a connection."""
    engine, breaker = guarded_engine(
        port=proxy.port,
        options={"pool_size": 1, "max_overflow": 0},
        slow_call_duration=1.0,
        failure_threshold=1,
        half_open_max_calls=1,
    )
    assert await one(engine) == 1
    proxy.fall_silent()
    hanging = asyncio.create_task(one(engine))
    await in_flight(breaker, 1)
    clock.advance(1.0)
    assert breaker.is_open
    clock.advance(10.0)
    assert breaker.is_half_open

    queuing = asyncio.create_task(one(engine))
    await in_flight(breaker, 2)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        with pytest.raises(CircuitOpenError):
            await one(engine)
    clock.advance(1.0)
    assert breaker.is_open

    proxy.speak()
    assert await hanging == 1
    with pytest.raises(CircuitOpenError):
        await queuing
    assert breaker.in_flight == 0


async def test_calls_cut_off_by_an_outer_time_limit_leave_no_permit_behind(
    proxy: TCPProxy, guarded_engine: GuardedEngine
) -> None:
    """A cancelled connect or statement is neutral and returns its permit."""
    engine, breaker = guarded_engine(port=proxy.port)
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        proxy.fall_silent()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await one(engine)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await session.execute(text("SELECT 1"))
        await session.invalidate()

    assert breaker.is_closed
    assert breaker.total_failures == 0
    assert breaker.in_flight == 0


async def test_time_limit_of_the_driver_is_a_failure(
    proxy: TCPProxy, guarded_engine: GuardedEngine
) -> None:
    """The timeouts of asyncpg for connects and statements count."""
    engine, breaker = guarded_engine(
        port=proxy.port, options={"connect_args": {"command_timeout": 1.0}}
    )

    @event.listens_for(engine.sync_engine, "do_connect")
    def limit(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        # Connecting to a server that answers may take long on a busy machine.
        parameters["timeout"] = 0.2 if proxy.is_silent else DEADLINE_SECONDS

    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        proxy.fall_silent()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await one(engine)
        with pytest.raises(TimeoutError):
            await session.execute(text("SELECT 1"))

    assert breaker.is_open
    assert breaker.total_failures == 3
    assert breaker.in_flight == 0
