"""Engines for the database that the settings name: PostgreSQL, or a file of SQLite."""

import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.engine import AdaptedConnection, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from example_service.core.settings import Settings
from example_service.core.settings.types import SQLITE_SCHEMES, SSL_MODE
from example_service.infra.database.failures import DRIVER_ERRORS, loses_connection

_RECYCLE_SECONDS: Final = 1800
"""Below the idle limits of common firewalls and balancers."""

_CLIENT_MARGIN_SECONDS: Final = 1.0
"""How much longer the client waits than the server may work: a server that can still answer ends
its statement itself, and the connection survives."""

_FAREWELL_SECONDS: Final = 0.05
"""How long closing one connection may take. A server that hears of it need not answer, and at the
end of the process all connections are closed one after another."""

_READ_ONLY_PARAMETERS: Final = ("in_hot_standby", "default_transaction_read_only")

_IDLE_IN_TRANSACTION_SECONDS: Final = 60
"""A transaction whose owner was stopped must not keep its locks for ever."""


def create_engine(settings: Settings) -> AsyncEngine:
    """Make the engine that serves requests; nothing is connected yet.

    PostgreSQL: at most `DATABASE__POOL_SIZE` connections, each asked before it is used whether it
    lives and may write, and a time limit for each way in which the server may keep one waiting. A
    connection that has met such a limit is given up, and with it all that are as old: a server that
    has fallen silent, or was replaced by another, is silent on all of them.

    SQLite: one connection, whose transactions follow each other in order of arrival, in a file with
    a write-ahead log. A transaction is on the disk when it is committed.
    """
    url = database_url(settings)
    database = settings.database
    if is_sqlite(url):
        busy_timeout_seconds = database.statement_timeout_seconds
        # Whoever waits for the one connection waits for a transaction, which may wait for a writer.
        queue_seconds = database.pool_timeout_seconds + busy_timeout_seconds
        return _sqlite_engine(
            url, busy_timeout_seconds, pool_size=1, max_overflow=0, pool_timeout=queue_seconds
        )
    engine = _postgresql_engine(
        settings,
        database.statement_timeout_seconds,
        pool_size=database.pool_size,
        max_overflow=0,
        pool_timeout=database.pool_timeout_seconds,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_SECONDS,
    )
    # The dialect's own ping begins and rolls back a transaction, and may hang for as long as a
    # statement in each of its four steps.
    ping = partial(_lives, limit_seconds=database.connect_timeout_seconds)
    setattr(engine.dialect, "do_ping", ping)  # noqa: B010 - mypy wants no method assigned
    return engine


def create_migration_engine(settings: Settings, *, statement_timeout_seconds: float) -> AsyncEngine:
    """Make an engine without a pool, for work that takes longer than a request may.

    Args:
        settings: Where the database is, and how long connecting may take.
        statement_timeout_seconds: How long one statement may take or, with SQLite, wait for
            another writer.
    """
    url = database_url(settings)
    if is_sqlite(url):
        return _sqlite_engine(url, statement_timeout_seconds, poolclass=NullPool)
    return _postgresql_engine(settings, statement_timeout_seconds, poolclass=NullPool)


def database_url(settings: Settings) -> URL:
    """The address as SQLAlchemy reads it: with the driver, and without what is said elsewhere."""
    url = make_url(settings.database_url.get_secret_value())
    driver = "sqlite+aiosqlite" if url.drivername in SQLITE_SCHEMES else "postgresql+asyncpg"
    return url.set(drivername=driver, query={})


def is_sqlite(url: URL) -> bool:
    """Whether the database is a file of SQLite."""
    return url.get_backend_name() == "sqlite"


class _Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
    """A connection that can be closed while its server does not answer."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Take leave of the server, and cut the connection if that takes long.

        SQLAlchemy waits here for as long as a statement may take, or two seconds after an error,
        before an answer can be given that says no more than that the database is silent.
        """
        with suppress(TimeoutError):
            await super().close(timeout=_FAREWELL_SECONDS)


def _lives(connection: AdaptedConnection, *, limit_seconds: float) -> bool:
    """Whether a connection answers and may write; the pool replaces one that does not.

    With a connection that is replaced, the pool replaces all that are as old: when a failover has
    made the server read-only, the next ones find the primary.
    """
    try:
        connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=limit_seconds))
    except DRIVER_ERRORS:
        return False
    # The server reports these by itself whenever they change; a pooler may not.
    reported = connection.driver_connection.get_settings()
    return all(getattr(reported, name, "off") == "off" for name in _READ_ONLY_PARAMETERS)


def _give_up_connection(context: ExceptionContext) -> None:
    # After a time limit, a rollback would wait until the driver has cancelled the statement, over
    # a connection of its own, which a silent server leaves waiting just as long.
    if loses_connection(context.original_exception):
        context.is_disconnect = True


def _postgresql_engine(
    settings: Settings, statement_timeout_seconds: float, **options: Any
) -> AsyncEngine:
    arguments = _postgresql_arguments(settings, statement_timeout_seconds)
    engine = create_async_engine(
        database_url(settings),
        connect_args=arguments,
        hide_parameters=True,
        # Whatever the default of the server is: the statements are written for this level.
        isolation_level="READ COMMITTED",
        **options,
    )
    event.listen(engine.sync_engine, "handle_error", _give_up_connection)
    return engine


def _postgresql_arguments(settings: Settings, statement_timeout_seconds: float) -> dict[str, Any]:
    """What the driver is told when it connects."""
    url = make_url(settings.database_url.get_secret_value())
    milliseconds = max(1, round(statement_timeout_seconds * 1000))
    return {
        "connection_class": _Connection,
        "timeout": settings.database.connect_timeout_seconds,
        "command_timeout": statement_timeout_seconds + _CLIENT_MARGIN_SECONDS,
        "ssl": url.query.get(SSL_MODE, "prefer"),
        "server_settings": {
            "application_name": "example-service",
            "statement_timeout": str(milliseconds),
            "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_SECONDS}s",
        },
    }


def _sqlite_engine(url: URL, busy_timeout_seconds: float, **options: Any) -> AsyncEngine:
    if url.database is not None:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url, connect_args={"timeout": busy_timeout_seconds}, hide_parameters=True, **options
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
