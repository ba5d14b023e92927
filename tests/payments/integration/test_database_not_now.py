"""Temporary refusals of a real PostgreSQL: clients get a 503 or do not notice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from example_service.core.settings import Settings
from example_service.infra.database.database import Database, database_breaker, open_database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.readiness import Check, Readiness
from example_service.infra.resilience import CircuitOpenError
from example_service.migrations import schema_fault, upgrade
from tests.databases import settings_for
from tests.payments.payment_api import GOOD_ORDER, PATH, PaymentAPI, running_payment_api
from tests.postgres import PostgresServer, running_postgres
from tests.tcp_proxy import TCPProxy

pytestmark = pytest.mark.integration

PASSING = [
    *("40001", "40P01", "55P03", "55006", "25006", "25P04", "26000", "42P05", "57014", "53300"),
    *("42501", "54000"),
]


@pytest.fixture
async def api(
    postgres_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PaymentAPI]:
    """The payment API with a real PostgreSQL."""
    monkeypatch.setenv("DATABASE_URL", postgres_settings.database_url.get_secret_value())
    async with running_payment_api() as api:
        yield api


@pytest.fixture
async def database(postgres_settings: Settings) -> AsyncIterator[Database]:
    """The database without the API."""
    async with open_database(postgres_settings) as database:
        yield database


@asynccontextmanager
async def administrator(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection outside the service."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def refusing_inserts(settings: Settings, state: str, times: int) -> AsyncIterator[None]:
    """Let the server refuse that many inserts into `payments` with an SQLSTATE."""
    async with administrator(settings) as connection:
        await connection.execute(
            f"""
            CREATE SEQUENCE refusals;
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF nextval('refusals') <= {times} THEN
                RAISE EXCEPTION 'not now' USING ERRCODE = '{state}';
              END IF;
              RETURN NEW;
            END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
        try:
            yield
        finally:
            await connection.execute(
                "DROP TRIGGER refuse ON payments; DROP FUNCTION refuse; DROP SEQUENCE refusals"
            )


@pytest.mark.parametrize("state", PASSING)
async def test_what_passes_is_503_with_retry_after(
    state: str, api: PaymentAPI, postgres_settings: Settings
) -> None:
    """The client is asked to come back, and nothing is stored or charged."""
    async with refusing_inserts(postgres_settings, state, times=9):
        answer = await api.order(GOOD_ORDER, b"key-1")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert await api.stored() == {}
    assert api.charged == []


@pytest.mark.parametrize("state", ["40001", "40P01", "25006"])
async def test_a_conflict_that_is_gone_is_not_seen(
    state: str, api: PaymentAPI, postgres_settings: Settings
) -> None:
    """The transaction is repeated once, and the payment is charged once."""
    async with refusing_inserts(postgres_settings, state, times=1):
        answer = await api.order(GOOD_ORDER, b"key-1")

    assert answer.status_code == 201
    assert len(api.charged) == 1


async def test_a_bug_is_not_an_outage(database: Database) -> None:
    """A statement that can never work is an error of the service and raised unchanged."""
    with pytest.raises(Exception, match="syntax error"):
        await database.run(lambda session: session.execute(text("SELEC 1")))


async def test_a_migration_under_a_running_instance_is_not_seen(
    api: PaymentAPI, postgres_settings: Settings
) -> None:
    """Prepared statements from before the migration are prepared again."""
    placed = await api.order(GOOD_ORDER, b"key-1")
    address = f"{PATH}/{placed.json()['id']}"
    assert (await api.client.get(address)).status_code == 200

    async with administrator(postgres_settings) as connection:
        await connection.execute("ALTER TABLE payments ALTER COLUMN customer_id TYPE text")
        try:
            answers = [await api.client.get(address), await api.client.get(PATH)]
        finally:
            await connection.execute(
                "ALTER TABLE payments ALTER COLUMN customer_id TYPE varchar(64)"
            )

    assert [answer.status_code for answer in answers] == [200, 200]


async def test_another_default_isolation_level_changes_nothing(
    api: PaymentAPI, postgres_settings: Settings
) -> None:
    """Two simultaneous orders with one key are one payment, as at the usual level."""
    name = postgres_settings.database_url.get_secret_value().rpartition("/")[2]
    async with administrator(postgres_settings) as connection:
        await connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
        )
        try:
            answers = await asyncio.gather(
                *(api.order(GOOD_ORDER, b"key-1") for _ in range(20)),
            )
        finally:
            await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_isolation")

    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len(api.charged) == 1


async def test_a_transaction_that_the_server_has_ended_means_unavailable(
    database: Database,
) -> None:
    """A process that was suspended within a transaction finds its connection closed."""

    async def sleep_inside(session: AsyncSession) -> None:
        await session.execute(text("SET idle_in_transaction_session_timeout = 20"))
        await asyncio.sleep(0.2)
        await session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailableError):
        await database.run(sleep_inside)


async def test_a_schema_that_is_not_there_means_unavailable(
    empty_database: Settings,
) -> None:
    """Clients are asked to come back until the migrations have run."""
    async with open_database(empty_database) as database:
        with pytest.raises(DatabaseUnavailableError, match=r"no such table|does not exist"):
            await database.run(lambda session: session.execute(text("SELECT id FROM payments")))


class Failover:
    """Two servers behind one address, and clients that stay connected to the first.

    Args:
        proxy: The address.
        first: The primary at the beginning.
        second: The server that replaces it.
    """

    def __init__(self, proxy: TCPProxy, first: PostgresServer, second: PostgresServer) -> None:
        self._proxy = proxy
        self._first = first
        self._second = second
        self.settings = settings_for(first.url_at(proxy.port))

    async def demote(self) -> None:
        """Make the first server read-only; its connections stay open."""
        connection = await asyncpg.connect(self._first.url)
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    def promote(self) -> None:
        """Route new connections to the second server."""
        self._proxy.lead_to(self._second.port)


@pytest.fixture(scope="module")
def second_server() -> Iterator[PostgresServer]:
    """The server to be promoted."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def failover(second_server: PostgresServer) -> AsyncIterator[Failover]:
    """A new primary that the second server can replace."""
    with running_postgres() as first:
        for server in (first, second_server):
            await upgrade(settings_for(server.url))
        async with TCPProxy(first.port).listening() as proxy:
            yield Failover(proxy, first, second_server)


async def hold_connections(database: Database, count: int) -> None:
    """Leave that many idle connections in the pool."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            session = await stack.enter_async_context(database.transaction())
            await session.execute(text("SELECT 1"))


async def write(session: AsyncSession) -> None:
    """Write something."""
    await session.execute(text("UPDATE alembic_version SET version_num = version_num"))


async def test_after_a_failover_the_next_transaction_finds_the_primary(
    failover: Failover,
) -> None:
    """None fails, even though all connections lead to a server that is now read-only."""
    async with open_database(failover.settings) as database:
        await hold_connections(database, 5)
        await failover.demote()
        failover.promote()
        for _ in range(5):
            await database.run(write)

        assert database_breaker().is_closed


async def test_a_failover_in_the_middle_of_a_transaction_is_not_seen(failover: Failover) -> None:
    """Its first write is refused, and a new transaction finds the primary."""
    attempts = 0

    async def demoted_meanwhile(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            # A standby does this to every transaction.
            await session.execute(text("SET TRANSACTION READ ONLY"))
            failover.promote()
        await write(session)

    async with open_database(failover.settings) as database:
        await hold_connections(database, 3)
        await database.run(demoted_meanwhile)
        assert attempts == 2
        assert await database.run(which_server) == failover._second.port


async def which_server(session: AsyncSession) -> int:
    """The port of the server that answers."""
    port = await session.scalar(text("SHOW port"))
    return int(port or 0)


async def test_a_primary_that_stays_read_only_opens_the_circuit_and_is_not_ready(
    failover: Failover,
) -> None:
    """Reads continue, readiness gives the reason, and writes are refused quickly."""
    async with open_database(failover.settings) as database:
        await failover.demote()
        readiness = Readiness([Check("database", lambda: schema_fault(database))])
        assert "read-only" in (await readiness.faults())["database"]
        with pytest.raises(DatabaseUnavailableError, match="read-only transaction"):
            await database.run(write)
        for _ in range(2):
            with suppress(DatabaseUnavailableError, CircuitOpenError):
                await database.run(write)

        with pytest.raises(CircuitOpenError):
            await database.run(write)
