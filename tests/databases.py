"""The databases of tests: an SQLite file or a real PostgreSQL, in a clean state for each test.

A test that uses `empty_database`, `settings` or `database` runs on both. The run on PostgreSQL is
an integration test, because it needs a server.
"""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from example_service.core.settings import Settings
from example_service.infra.database.base import Base
from example_service.infra.database.database import DATABASE_BREAKER, Database, open_database
from example_service.infra.resilience import circuit_breaker_registry
from example_service.migrations import upgrade
from tests.postgres import PostgresServer, running_postgres

BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""The time at which the tests of the database take place."""


def at(seconds: float) -> datetime:
    """The time this many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def settings_for(url: str) -> Settings:
    """Settings for a test with the database at this URL."""
    return Settings(environment="test", database_url=SecretStr(url))


class PostgresDatabases:
    """Databases on one PostgreSQL server.

    Args:
        server: The server.
    """

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._numbers = count(1)
        self._migrated: str | None = None

    @contextmanager
    def empty(self) -> Iterator[str]:
        """The URL of a new database, which is dropped at the end of the block."""
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield self._url(name)
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def migrated(self) -> str:
        """The URL of a database with the current schema and empty tables.

        Every call returns the same database, because creating one takes longer than most tests.
        """
        if self._migrated is None:
            self._execute("CREATE DATABASE migrated TEMPLATE template0")
            self._migrated = self._url("migrated")
            asyncio.run(upgrade(settings_for(self._migrated)))
            return self._migrated
        self._execute(
            # Connections that an earlier test left open may hold locks.
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = 'migrated'"
        )
        if tables := ", ".join(table.name for table in Base.metadata.sorted_tables):
            self._execute(f"TRUNCATE {tables}", self._migrated)
        return self._migrated

    def _url(self, name: str) -> str:
        return f"{self.server.url.rpartition('/')[0]}/{name}"

    def _execute(self, statement: str, url: str | None = None) -> None:
        if not self.server.is_running:
            self.server.start()

        async def execute() -> None:
            connection = await asyncpg.connect(url or self.server.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(execute())


class SQLiteDatabases:
    """Creates SQLite files as copies of one that was migrated once.

    Args:
        folder: The folder for the original.
    """

    def __init__(self, folder: Path) -> None:
        self._template = folder / "migrated.sqlite3"

    def migrated(self, path: Path) -> str:
        """The URL of a new file with the current schema."""
        if not self._template.exists():
            asyncio.run(upgrade(settings_for(f"sqlite:///{self._template}")))
        shutil.copy(self._template, path)
        return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[PostgresDatabases]:
    """Databases on the PostgreSQL server of the session, which a test may crash."""
    with running_postgres() as server:
        yield PostgresDatabases(server)


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SQLiteDatabases:
    """SQLite files."""
    return SQLiteDatabases(tmp_path_factory.mktemp("databases"))


@pytest.fixture
def sqlite_settings(sqlite_databases: SQLiteDatabases, tmp_path: Path) -> Settings:
    """Settings for a test with a migrated SQLite file."""
    return settings_for(sqlite_databases.migrated(tmp_path / "migrated.sqlite3"))


@pytest.fixture
def postgres_settings(postgres_databases: PostgresDatabases) -> Settings:
    """Settings for a test with a migrated PostgreSQL database."""
    return settings_for(postgres_databases.migrated())


@pytest.fixture(params=BACKENDS)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings for a test with a database that has not been migrated."""
    if request.param == "sqlite":
        yield settings_for(f"sqlite:///{tmp_path}/empty.sqlite3")
        return
    databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
    with databases.empty() as url:
        yield settings_for(url)


@pytest.fixture(params=BACKENDS)
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings for a test with a migrated database, which the environment names as well."""
    found: Settings = request.getfixturevalue(
        "sqlite_settings" if request.param == "sqlite" else "postgres_settings"
    )
    monkeypatch.setenv("DATABASE_URL", found.database_url.get_secret_value())
    return found


@pytest.fixture
async def threads_of_sqlite() -> AsyncIterator[None]:
    """After the test, wait for the threads of connections that failed or were cancelled.

    The driver does not wait for them, and such a thread needs an open event loop.
    """
    yield
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(60.0)


@asynccontextmanager
async def open_patiently(settings: Settings) -> AsyncIterator[Database]:
    """Open a database with limits that suit many calls at once on a busy machine."""
    circuit_breaker_registry.configure({DATABASE_BREAKER: {"slow_call_duration": None}})
    limits = {"pool_timeout_seconds": 60.0, "connect_timeout_seconds": 60.0}
    patient = settings.database.model_copy(update=limits)
    async with open_database(settings.model_copy(update={"database": patient})) as database:
        yield database


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A migrated database, as the application uses it."""
    async with open_patiently(settings) as database:
        yield database
