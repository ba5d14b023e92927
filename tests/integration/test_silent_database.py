"""Every wait for a PostgreSQL that accepts connections but stays silent is limited."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, text

from example_service.core.settings import Settings
from example_service.core.settings.model import DatabaseSettings
from example_service.infra.database.database import Database, open_database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from tests.postgres import PostgresServer, running_postgres
from tests.service_process import DEADLINE_SECONDS
from tests.tcp_proxy import TCPProxy

pytestmark = pytest.mark.integration

LIMITS = DatabaseSettings(
    pool_timeout_seconds=5.0, connect_timeout_seconds=1.0, statement_timeout_seconds=1.0
)
CLIENT_MARGIN_SECONDS = 1.0
BUSY_MACHINE_SECONDS = 1.9
"""Shorter than a second wait for the server would be."""
CONNECTIONS = 8


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """The server of this module."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[TCPProxy]:
    """A proxy to the server that can fall silent."""
    async with TCPProxy(postgres.port).listening() as proxy:
        yield proxy


@pytest.fixture
async def database(postgres: PostgresServer, proxy: TCPProxy) -> AsyncIterator[Database]:
    """The database behind the proxy."""
    async with opened(postgres, proxy) as database:
        yield database


@asynccontextmanager
async def opened(postgres: PostgresServer, proxy: TCPProxy) -> AsyncIterator[Database]:
    """The database behind the proxy, to be closed within a test."""
    url = SecretStr(postgres.url_at(proxy.port))
    settings = Settings(environment="test", database_url=url, database=LIMITS)
    async with open_database(settings) as database:

        @event.listens_for(database.engine.sync_engine, "do_connect")
        def limit(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
            # Connecting to a server that answers may take long on a busy machine.
            limit = LIMITS.connect_timeout_seconds if proxy.is_silent else DEADLINE_SECONDS
            parameters["timeout"] = limit

        yield database


async def ask(database: Database) -> None:
    """Run one transaction."""
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))


async def fill_pool(database: Database, connections: int) -> None:
    """Leave that many idle connections in the pool."""
    async with AsyncExitStack() as stack:
        for _ in range(connections):
            session = await stack.enter_async_context(database.transaction())
            await session.execute(text("SELECT 1"))


async def meet_silence(database: Database, proxy: TCPProxy, statements: list[str]) -> None:
    """Silence the server within a transaction, then run these statements and end it."""
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))
        proxy.fall_silent()
        for statement in statements:
            await session.execute(text(statement))


@pytest.mark.parametrize("statements", [["SELECT 2"], []], ids=["statement", "commit"])
async def test_silence_within_a_transaction_costs_one_time_limit(
    statements: list[str], database: Database, proxy: TCPProxy
) -> None:
    """Neither the rollback nor closing the connection waits a second time."""
    await ask(database)
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError):
        await meet_silence(database, proxy, statements)

    limit = LIMITS.statement_timeout_seconds + CLIENT_MARGIN_SECONDS
    assert limit <= time.monotonic() - started < limit + BUSY_MACHINE_SECONDS


async def test_an_idle_connection_must_answer_within_the_connect_timeout(
    database: Database, proxy: TCPProxy
) -> None:
    """The pool then drops it, and connecting again has the same limit."""
    await ask(database)
    proxy.fall_silent()
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError):
        await ask(database)

    limit = 2 * LIMITS.connect_timeout_seconds
    assert limit <= time.monotonic() - started < limit + BUSY_MACHINE_SECONDS


async def test_an_outer_time_limit_is_kept(database: Database, proxy: TCPProxy) -> None:
    """A caller that gives up need not wait until its connection is closed."""
    await ask(database)
    proxy.fall_silent()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await ask(database)

    assert time.monotonic() - started < BUSY_MACHINE_SECONDS


async def test_one_silent_connection_discards_all_that_are_as_old(
    database: Database, proxy: TCPProxy
) -> None:
    """After a failover, only the first caller waits; the others get new connections."""
    await fill_pool(database, CONNECTIONS)
    proxy.fail_over()
    started = time.monotonic()
    for _ in range(CONNECTIONS):
        await ask(database)

    waited = time.monotonic() - started
    assert waited < LIMITS.connect_timeout_seconds * CONNECTIONS / 2


async def test_a_pool_of_a_silent_server_closes_without_waiting(
    postgres: PostgresServer, proxy: TCPProxy
) -> None:
    """The process can exit without waiting for each of its connections."""
    async with opened(postgres, proxy) as database:
        await fill_pool(database, CONNECTIONS)
        proxy.fall_silent()
        started = time.monotonic()

    assert time.monotonic() - started < BUSY_MACHINE_SECONDS
