"""Engines: the settings in effect on a connection, and the number of connections."""

import asyncio
import sqlite3
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from example_service.core.settings import Settings
from example_service.core.settings.model import DatabaseSettings
from example_service.infra.database.database import open_database
from example_service.infra.database.engine import (
    create_engine,
    create_migration_engine,
)
from example_service.infra.database.exceptions import DatabaseUnavailableError
from tests.databases import settings_for


async def answer(engine: AsyncEngine, question: str) -> Any:
    """The single value that a statement returns."""
    async with engine.begin() as connection:
        return await connection.scalar(text(question))


def changed(settings: Settings, **database: Any) -> Settings:
    """The settings, with other values in the group of the database."""
    return settings.model_copy(update={"database": DatabaseSettings(**database)})


class TestSQLite:
    """The embedded database."""

    async def test_commits_are_durable(self, sqlite_settings: Settings) -> None:
        """Each connection uses the write-ahead log, full synchronisation and foreign keys."""
        engine = create_engine(sqlite_settings)
        found = [
            await answer(engine, f"PRAGMA {name}")
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        await engine.dispose()

        assert found == ["wal", 2, 1]

    async def test_a_folder_that_cannot_be_created_means_unavailable(self, tmp_path: Path) -> None:
        """The service starts all the same, readiness says what is wrong, and no thread is left."""
        (tmp_path / "file").touch()
        settings = settings_for(f"sqlite:///{tmp_path}/file/folder/database.sqlite3")
        async with open_database(settings) as database:
            with pytest.raises(DatabaseUnavailableError, match="unable to open database file"):
                await database.run(lambda session: session.execute(text("SELECT 1")))

        assert not [t for t in threading.enumerate() if "_connection_worker" in t.name]

    async def test_the_folder_of_the_file_is_created(self, tmp_path: Path) -> None:
        """A fresh clone has no folder `var/`."""
        file = tmp_path / "some" / "where" / "file.sqlite3"
        engine = create_engine(settings_for(f"sqlite:///{file}"))
        await answer(engine, "SELECT 1")
        await engine.dispose()

        assert file.exists()

    async def test_a_new_file_with_a_writer_is_waited_for(self, tmp_path: Path) -> None:
        """SQLite refuses at once to switch it to a write-ahead log, whatever its time limit is."""
        file = tmp_path / "new.sqlite3"
        engine = create_engine(settings_for(f"sqlite:///{file}"))
        writer = sqlite3.connect(file, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.05, writer.rollback)

        assert await answer(engine, "PRAGMA journal_mode") == "wal"

        writer.close()
        await engine.dispose()

    async def test_transactions_begin_as_writers(self, sqlite_settings: Settings) -> None:
        """Otherwise, a transaction that reads first could not write after another one has."""
        first = create_engine(sqlite_settings)
        second = create_engine(changed(sqlite_settings, statement_timeout_seconds=0.01))
        async with first.begin() as connection:
            await connection.execute(text("SELECT * FROM sqlite_master"))
            with pytest.raises(OperationalError, match="database is locked"):
                await answer(second, "SELECT 1")
        assert await answer(second, "SELECT 1") == 1
        await first.dispose()
        await second.dispose()

    async def test_schema_changes_are_rolled_back(self, sqlite_settings: Settings) -> None:
        """By default, the driver commits before each schema change."""
        engine = create_engine(sqlite_settings)
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TABLE notes (id INTEGER)"))
            await connection.rollback()
        tables = await answer(engine, "SELECT count(*) FROM sqlite_master WHERE name = 'notes'")
        await engine.dispose()

        assert tables == 0

    async def test_there_is_one_connection(self, sqlite_settings: Settings) -> None:
        """Waiting for it may take as long as the limits of the pool and of a statement together."""
        engine = create_engine(
            changed(sqlite_settings, pool_timeout_seconds=0.01, statement_timeout_seconds=0.02)
        )
        async with engine.connect():
            with pytest.raises(PoolTimeoutError, match=r"timeout 0\.03"):
                await answer(engine, "SELECT 1")
        await engine.dispose()

    async def test_migrations_have_a_time_limit_of_their_own(
        self, sqlite_settings: Settings
    ) -> None:
        """Their engine has the same pragmas, but another time limit and no pool."""
        engine = create_migration_engine(sqlite_settings, statement_timeout_seconds=1.5)
        found = [await answer(engine, f"PRAGMA {name}") for name in ("busy_timeout", "synchronous")]

        assert found == [1500, 2]
        assert isinstance(engine.pool, NullPool)


@pytest.mark.integration
class TestPostgreSQL:
    """The database of production."""

    async def test_the_server_knows_the_limits_and_the_name(
        self, postgres_settings: Settings
    ) -> None:
        """The test queries the limits and the name that are in effect on a connection."""
        engine = create_engine(changed(postgres_settings, statement_timeout_seconds=1.25))
        found = [
            await answer(engine, f"SHOW {name}")
            for name in (
                "application_name",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
            )
        ]
        await engine.dispose()

        assert found == ["example-service", "1250ms", "1min"]

    async def test_the_smallest_time_limit_is_still_a_limit(
        self, postgres_settings: Settings
    ) -> None:
        """For the server, a limit of zero means no limit."""
        engine = create_migration_engine(postgres_settings, statement_timeout_seconds=0.0001)
        with pytest.raises(DBAPIError, match="statement timeout"):
            await answer(engine, "SELECT pg_sleep(30)")

    async def test_a_slow_statement_is_ended_by_the_server_and_the_connection_survives(
        self, postgres_settings: Settings
    ) -> None:
        """The client waits longer than the server does, so it receives the server's error."""
        engine = create_engine(changed(postgres_settings, statement_timeout_seconds=0.5))
        async with engine.connect() as connection:
            process = await connection.scalar(text("SELECT pg_backend_pid()"))
            with pytest.raises(DBAPIError, match="statement timeout"):
                await connection.execute(text("SELECT pg_sleep(30)"))
            await connection.rollback()
            assert await connection.scalar(text("SELECT pg_backend_pid()")) == process
        await engine.dispose()

    async def test_there_are_never_more_connections_than_the_pool_allows(
        self, postgres_settings: Settings
    ) -> None:
        """The server confirms the number, and callers wait for a free one for a limited time."""
        engine = create_engine(changed(postgres_settings, pool_size=3, pool_timeout_seconds=0.05))
        observer = create_migration_engine(postgres_settings, statement_timeout_seconds=5.0)
        async with AsyncExitStack() as stack:
            for _ in range(3):
                connection = await stack.enter_async_context(engine.connect())
                await connection.execute(text("SELECT 1"))
            with pytest.raises(PoolTimeoutError):
                await answer(engine, "SELECT 1")
            count = await answer(
                observer,
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        await engine.dispose()

        assert count == 3

    async def test_a_waiting_caller_gets_the_next_free_connection(
        self, postgres_settings: Settings
    ) -> None:
        """The connection is reused, not replaced."""
        engine = create_engine(changed(postgres_settings, pool_size=1, pool_timeout_seconds=30.0))
        async with engine.connect() as connection:
            process = await connection.scalar(text("SELECT pg_backend_pid()"))
            waiting = asyncio.create_task(answer(engine, "SELECT pg_backend_pid()"))
            await asyncio.sleep(0)
        assert await waiting == process
        await engine.dispose()

    async def test_a_connection_that_died_in_the_pool_is_replaced(
        self, postgres_settings: Settings
    ) -> None:
        """The caller that takes it from the pool does not notice."""
        engine = create_engine(postgres_settings)
        observer = create_migration_engine(postgres_settings, statement_timeout_seconds=5.0)
        process = await answer(engine, "SELECT pg_backend_pid()")
        assert await answer(observer, f"SELECT pg_terminate_backend({process}, 5000)")

        assert await answer(engine, "SELECT pg_backend_pid()") != process
        await engine.dispose()

    async def test_the_tls_mode_is_passed_on(self, postgres_settings: Settings) -> None:
        """This server has no TLS, so `require` fails and `prefer` connects without it."""
        url = postgres_settings.database_url.get_secret_value()
        strict, lenient = (
            create_engine(settings_for(f"{url}?sslmode={mode}")) for mode in ("require", "prefer")
        )
        with pytest.raises(ConnectionError, match="SSL"):
            await answer(strict, "SELECT 1")

        assert await answer(lenient, "SELECT 1") == 1
        await lenient.dispose()


async def test_errors_do_not_contain_the_values_of_statements(settings: Settings) -> None:
    """Errors are logged, and the log must not reveal personal data."""
    engine = create_engine(settings)
    with pytest.raises(DBAPIError) as caught:
        async with engine.begin() as connection:
            await connection.execute(
                text("INSERT INTO nowhere VALUES (:customer)"), {"customer": "secret"}
            )
    await engine.dispose()

    assert "nowhere" in str(caught.value)
    assert "secret" not in str(caught.value)
