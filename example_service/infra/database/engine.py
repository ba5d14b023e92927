"""Engines for the database that the settings name: PostgreSQL, or a file of SQLite."""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from example_service.core.settings import Settings
from example_service.core.settings.database_url import (
    PostgreSQLAddress,
    SQLiteAddress,
    parse_database_url,
)
from example_service.infra.database.postgresql import pooled_engine, postgresql_engine


def create_engine(settings: Settings) -> AsyncEngine:
    """Make the engine that serves requests; nothing is connected yet.

    PostgreSQL: at most `DATABASE__POOL_SIZE` connections, each asked before it is used whether it
    lives and may write, and a time limit for each way in which the server may keep one waiting. A
    connection that has met such a limit is given up, and with it all that are as old: a server that
    has fallen silent, or was replaced by another, is silent on all of them.

    SQLite: one connection, whose transactions follow each other in order of arrival, in a file with
    a write-ahead log. A transaction is on the disk when it is committed.
    """
    address = database_address(settings)
    if isinstance(address, PostgreSQLAddress):
        return pooled_engine(address, settings)
    busy_timeout_seconds = settings.database.statement_timeout_seconds
    # A caller that waits for the one connection waits for a transaction, and that for a writer.
    queue_seconds = settings.database.pool_timeout_seconds + busy_timeout_seconds
    return _sqlite_engine(
        address, busy_timeout_seconds, pool_size=1, max_overflow=0, pool_timeout=queue_seconds
    )


def create_migration_engine(
    settings: Settings, *, statement_timeout_seconds: float, lock_timeout_seconds: float = 0.0
) -> AsyncEngine:
    """Make an engine without a pool, for work that takes longer than a request may.

    Args:
        settings: Where the database is, and how long connecting may take.
        statement_timeout_seconds: How long one statement may take or, with SQLite, wait for
            another writer.
        lock_timeout_seconds: How long a statement may wait for a lock of PostgreSQL; 0 for as long
            as it may take.
    """
    address = database_address(settings)
    if isinstance(address, PostgreSQLAddress):
        return postgresql_engine(
            address,
            settings,
            statement_timeout_seconds,
            lock_timeout_seconds=lock_timeout_seconds,
            poolclass=NullPool,
        )
    return _sqlite_engine(address, statement_timeout_seconds, poolclass=NullPool)


def database_address(settings: Settings) -> PostgreSQLAddress | SQLiteAddress:
    """Where the database is; as text, it is without the password."""
    return parse_database_url(settings.database_url.get_secret_value())


def _sqlite_engine(
    address: SQLiteAddress, busy_timeout_seconds: float, **options: Any
) -> AsyncEngine:
    Path(address.path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=address.path),
        connect_args={"timeout": busy_timeout_seconds},
        hide_parameters=True,
        **options,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    event.listen(engine.sync_engine, "invalidate", _unlock_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver begins no transaction before a SELECT or a CREATE TABLE; `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # At once as a writer: one that has read first cannot become a writer after another has written.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _unlock_sqlite(
    connection: DBAPIConnection, _record: ConnectionPoolEntry, _error: BaseException | None
) -> None:
    # A task that was cancelled may leave rows unread, and then closing the connection leaves the
    # file locked until the garbage collector finds their cursor.
    with suppress(sqlite3.Error):
        connection.rollback()
