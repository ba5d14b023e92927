"""Which errors of real PostgreSQL drivers mean that the database has failed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeAlias

import asyncpg
import psycopg
import pytest
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from example_service.infra.resilience import CircuitBreaker
from example_service.infra.resilience.sqlalchemy import guard_engine, is_database_failure
from tests.postgres import PostgresServer, running_postgres

pytestmark = pytest.mark.integration

Ask: TypeAlias = Callable[[str, str], Awaitable[CircuitBreaker]]

# Behaves like a pooler that refuses a tenant, for example Supavisor.
REFUSE_LOGINS = """
    CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no such tenant' USING ERRCODE = 'XX000'; END $$;
    CREATE EVENT TRIGGER refuse ON login EXECUTE FUNCTION refuse();
    ALTER EVENT TRIGGER refuse ENABLE ALWAYS
"""
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'a bug' USING ERRCODE = '{}'; END $$"
CANCEL_SELF = "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(30)"
TIME_OUT = "SET statement_timeout = 20; SELECT pg_sleep(30)"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server with a database that refuses logins, and one that accepts no connections."""
    with running_postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
            connection.execute("CREATE DATABASE refusing")
        with psycopg.connect(url_of(server, "refusing"), autocommit=True) as connection:
            connection.execute(REFUSE_LOGINS)
        yield server


def url_of(server: PostgresServer, database: str) -> str:
    """The URL of another database of the server."""
    return make_url(server.url).set(database=database).render_as_string()


async def ask_asyncpg(url: str, statement: str) -> None:
    """Connect and run a statement with asyncpg."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def ask_asyncpg_pool(url: str, statement: str) -> None:
    """Do the same with a connection of its pool."""
    async with asyncpg.create_pool(url, min_size=0) as pool, pool.acquire() as connection:
        await connection.execute(statement)


async def ask_psycopg(url: str, statement: str) -> None:
    """Do the same with psycopg in a thread."""

    def ask() -> None:
        with psycopg.connect(url) as connection:
            connection.execute(statement.encode())

    await asyncio.to_thread(ask)


async def ask_psycopg_async(url: str, statement: str) -> None:
    """Do the same with psycopg's asynchronous connection."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(statement.encode())


async def ask_engine(url: str, statement: str, breaker: CircuitBreaker | None = None) -> None:
    """Do the same with an SQLAlchemy engine, guarded if there is a breaker."""
    engine = create_async_engine(url, poolclass=NullPool)
    if breaker is not None:
        guard_engine(engine, breaker)
    async with engine.connect() as connection:
        for part in statement.split("; "):
            await connection.execute(text(part))


DRIVERS: dict[str, Callable[[str, str], Awaitable[None]]] = {
    "asyncpg": ask_asyncpg,
    "asyncpg pool": ask_asyncpg_pool,
    "psycopg": ask_psycopg,
    "psycopg async": ask_psycopg_async,
    "SQLAlchemy with asyncpg": ask_engine,
    "SQLAlchemy with psycopg": ask_engine,
}


@pytest.fixture(params=[*DRIVERS, "guarded asyncpg", "guarded psycopg"])
def ask(request: pytest.FixtureRequest, server: PostgresServer) -> Ask:
    """Run a statement through one of the drivers and return its breaker."""
    way: str = request.param
    is_engine = way.startswith(("SQLAlchemy", "guarded"))

    async def ask(database: str, statement: str) -> CircuitBreaker:
        rule = None if way.startswith("guarded") else is_database_failure
        breaker = CircuitBreaker("database", is_failure=rule, registry=None)
        url = url_of(server, database)
        if is_engine:
            url = url.replace("postgresql", f"postgresql+{way.rpartition(' ')[2]}", 1)
        if way.startswith("guarded"):
            asked = ask_engine(url, statement, breaker)
        else:
            asked = breaker.call(DRIVERS[way], url, statement)
        with pytest.raises(Exception):  # noqa: B017, PT011 - Each driver has its own.
            await asked
        assert breaker.in_flight == 0
        return breaker

    return ask


@pytest.mark.parametrize("database", ["closed", "refusing", "missing"])
async def test_refusal_while_connecting_is_a_failure(ask: Ask, database: str) -> None:
    """Maintenance (55000), a pooler's refusal (XX000) and a missing database (3D000)."""
    breaker = await ask(database, "SELECT 1")

    assert breaker.total_failures == 1


@pytest.mark.parametrize("statement", [RAISE.format("XX000"), RAISE.format("55000")])
async def test_same_code_from_a_statement_is_not_a_failure(ask: Ask, statement: str) -> None:
    """After connecting, they mean a bug or a wrong command in that statement only."""
    breaker = await ask("postgres", statement)

    assert breaker.total_failures == 0


@pytest.mark.parametrize(("statement", "failures"), [(TIME_OUT, 1), (CANCEL_SELF, 0)])
async def test_cancelled_statement_is_a_failure_if_it_took_too_long(
    ask: Ask, statement: str, failures: int
) -> None:
    """A statement timeout and an operator's cancellation have the same SQLSTATE, 57014."""
    breaker = await ask("postgres", statement)

    assert breaker.total_failures == failures


async def test_empty_pool_of_psycopg_is_not_a_failure(server: PostgresServer) -> None:
    """A caller that waits for a connection, or finds the pool closed, has sent no query."""
    breaker = CircuitBreaker("database", is_failure=is_database_failure, registry=None)
    pool = ConnectionPool(server.url, min_size=1, max_size=1, open=True)
    take = partial(pool.getconn, timeout=0.05)
    engine = create_engine("postgresql+psycopg://", creator=take, poolclass=NullPool)
    guard_engine(engine, breaker)
    with pool.connection():
        with pytest.raises(PoolTimeout), breaker:
            take()
        with pytest.raises(OperationalError, match="PoolTimeout"):
            engine.connect()
    pool.close()
    with pytest.raises(PoolClosed), breaker:
        take()

    assert (breaker.total_failures, breaker.in_flight) == (0, 0)
