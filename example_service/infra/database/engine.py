"""Engines for the configured database: PostgreSQL or SQLite."""

import asyncio
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from example_service.core.settings import Settings
from example_service.core.settings.database_url import (
    PostgreSQLAddress,
    SQLiteAddress,
    parse_database_url,
)
from example_service.infra.database.postgresql import (
    lift_transaction_timeout,
    pooled_engine,
    postgresql_engine,
)

_NEW_FILE_SECONDS: Final = 5.0
"""How long a connection waits for another that writes to a file without a write-ahead log."""
_NEW_FILE_RETRY_SECONDS: Final = 0.01


def create_engine(settings: Settings) -> AsyncEngine:
    """Create the engine that serves requests. It connects on first use.

    PostgreSQL: a pool of at most `DATABASE__POOL_SIZE` connections. Each is tested before use:
    whether the server replies and accepts writes. Every operation has a time limit. A connection
    that exceeds one is closed, together with all connections of the same age or older, because a
    server that hangs or was replaced does not reply on any of them.

    SQLite: a single connection that runs transactions in order of arrival, with a write-ahead log.
    Committed transactions are on disk.
    """
    address = database_address(settings)
    if isinstance(address, PostgreSQLAddress):
        return pooled_engine(address, settings)
    busy_timeout_seconds = settings.database.statement_timeout_seconds
    # A caller waits for the transaction that has the connection, which may wait for a writer.
    queue_seconds = settings.database.pool_timeout_seconds + busy_timeout_seconds
    return _sqlite_engine(
        address, busy_timeout_seconds, pool_size=1, max_overflow=0, pool_timeout=queue_seconds
    )


def create_migration_engine(
    settings: Settings, *, statement_timeout_seconds: float, lock_timeout_seconds: float = 0.0
) -> AsyncEngine:
    """Create an engine without a pool, for work that may take longer than a request.

    The server's `transaction_timeout` does not apply.

    Args:
        settings: The settings with the database URL and the connect timeout.
        statement_timeout_seconds: The time limit of one statement; with SQLite, the limit of
            waiting for another writer.
        lock_timeout_seconds: How long a PostgreSQL statement may wait for a lock; 0 for no separate
            limit.
    """
    address = database_address(settings)
    if isinstance(address, PostgreSQLAddress):
        engine = postgresql_engine(
            address,
            settings,
            statement_timeout_seconds,
            lock_timeout_seconds=lock_timeout_seconds,
            poolclass=NullPool,
        )
        event.listen(engine.sync_engine, "begin", lift_transaction_timeout)
        return engine
    return _sqlite_engine(address, statement_timeout_seconds, poolclass=NullPool)


def database_address(settings: Settings) -> PostgreSQLAddress | SQLiteAddress:
    """Parse the database URL. `str()` of the result does not include the password."""
    return parse_database_url(settings.database_url.get_secret_value())


def _sqlite_engine(
    address: SQLiteAddress, busy_timeout_seconds: float, **options: Any
) -> AsyncEngine:
    # Without the folder, connecting fails, which is handled like any outage of the database.
    with suppress(OSError):
        Path(address.path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=address.path),
        async_creator=partial(_connect_sqlite, address.path, busy_timeout_seconds),
        hide_parameters=True,
        **options,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    event.listen(engine.sync_engine, "invalidate", _unlock_sqlite)
    return engine


async def _connect_sqlite(path: str, busy_timeout_seconds: float) -> aiosqlite.Connection:
    connection = aiosqlite.connect(path, timeout=busy_timeout_seconds)
    thread = connection._thread  # noqa: SLF001 - SQLAlchemy sets this as well
    thread.daemon = True
    try:
        return await connection
    except sqlite3.Error:
        # Otherwise the thread may report its end to an event loop that is closed already.
        await asyncio.to_thread(thread.join)
        raise


def _prepare_sqlite(connection: AsyncAdapt_aiosqlite_connection, _: ConnectionPoolEntry) -> None:
    # Disable implicit transactions, which do not cover SELECT and CREATE TABLE: `_begin_sqlite`
    # begins every transaction.
    connection.isolation_level = None
    connection.run_async(_use_write_ahead_log)
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


async def _use_write_ahead_log(connection: aiosqlite.Connection) -> None:
    # SQLite's own time limit does not apply here: it refuses at once if another connection writes
    # to a new file, or prepares it as well. Several processes often start together.
    deadline = asyncio.get_running_loop().time() + _NEW_FILE_SECONDS
    while True:
        try:
            await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            if not is_busy or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(_NEW_FILE_RETRY_SECONDS)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE, because a transaction that has read cannot write after another one has written.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _unlock_sqlite(
    connection: DBAPIConnection, _record: ConnectionPoolEntry, _error: BaseException | None
) -> None:
    # A cancelled task may leave rows unread. Closing the connection would then leave the file
    # locked until the cursor is garbage-collected.
    with suppress(sqlite3.Error):
        connection.rollback()
