"""The database behind a real PgBouncer in each of its modes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from example_service.core.settings import Settings
from example_service.infra.database.database import Database, database_breaker, open_database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.migrations import schema_fault, upgrade
from example_service.payments.repository import PaymentRepository
from tests.databases import PostgresDatabases, open_patiently, settings_for
from tests.payments.unit.fakes import ORDER
from tests.pgbouncer import running_pgbouncer

pytestmark = pytest.mark.integration

SERVER_CONNECTIONS = 2
CLIENTS = 10


@pytest.fixture(params=["session", "transaction"])
def pooled(
    request: pytest.FixtureRequest, postgres_databases: PostgresDatabases
) -> Iterator[Settings]:
    """The settings of a service whose database has no schema yet, behind a pooler."""
    # In session mode, each connection of the service has its own server connection.
    count = SERVER_CONNECTIONS if request.param == "transaction" else CLIENTS
    server = postgres_databases.server
    with (
        postgres_databases.empty() as url,
        running_pgbouncer(server, request.param, server_connections=count) as port,
    ):
        name = url.rpartition("/")[2]
        yield settings_for(f"postgresql://postgres@127.0.0.1:{port}/{name}?pgbouncer=true")


@pytest.fixture
async def database(pooled: Settings) -> AsyncIterator[Database]:
    """The database behind the pooler with its schema."""
    await upgrade(pooled)
    # A hundred transactions wait for a few connections.
    async with open_patiently(pooled) as database:
        yield database


async def test_several_migrations_at_once_are_one(pooled: Settings) -> None:
    """Their lock also works through a pooler."""
    await asyncio.gather(*(upgrade(pooled) for _ in range(3)))

    async with open_database(pooled) as database:
        assert await schema_fault(database) is None


async def test_many_transactions_at_once_work(database: Database) -> None:
    """Prepared statements are neither missing nor mixed up."""

    async def pay(number: int) -> str:
        payment_id, key = uuid4(), f"key-{number}"
        await database.run(
            lambda session: PaymentRepository(session).add(payment_id, key, ORDER, 30.0)
        )
        found = await database.run(lambda session: PaymentRepository(session).find(payment_id))
        assert found is not None
        return found.idempotency_key

    keys = await asyncio.gather(*(pay(number) for number in range(100)))

    assert keys == [f"key-{number}" for number in range(100)]
    assert database_breaker().total_failures == 0


async def test_limits_are_in_effect_in_each_transaction(database: Database) -> None:
    """Each transaction sets them, because a pooler accepts no startup parameters."""

    async def limits(session: AsyncSession) -> list[str | None]:
        names = ("statement_timeout", "idle_in_transaction_session_timeout")
        return [await session.scalar(text(f"SHOW {name}")) for name in names]

    assert await database.run(limits) == ["5s", "1min"]


async def test_without_the_setting_the_error_names_it(pooled: Settings) -> None:
    """If the pooler refuses the startup parameters, the error names the setting."""
    url = pooled.database_url.get_secret_value().partition("?")[0]
    async with open_database(settings_for(url)) as database:
        with pytest.raises(DatabaseUnavailableError, match="DATABASE__POOLER=true"):
            await schema_fault(database)
