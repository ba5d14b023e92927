"""Database migrations: applying them, and checking that they were applied.

The migrations of each domain are in its folder `migrations/`. They form a separate branch without a
common base, so the database records one revision for each domain. Only `example-service migrate`
applies them. It can run several times concurrently: one process migrates, and the others wait for
it and find nothing to do.
"""

import asyncio
import os
import time
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from example_service.core.exceptions import ExampleServiceError
from example_service.core.settings import Settings
from example_service.infra.database.database import Database
from example_service.infra.database.engine import create_migration_engine
from example_service.infra.database.failures import is_lock_conflict

LOCK_WAIT_SECONDS: Final = 120.0
STATEMENT_TIMEOUT_SECONDS: Final = 600.0

LOCK_TIMEOUT_SECONDS: Final = 1.0
"""How long a migration waits for the lock of a table. Statements of the service queue behind it, so
this is less than the 1.5 seconds after which a statement counts as slow."""
LOCK_RETRY_SECONDS: Final = 1.0
"""How long a migration leaves the table to the service before it tries again."""

Revisions: TypeAlias = frozenset[str]
"""The revisions of a schema, one for each domain; empty for a database without a schema."""

_FOLDER: Final = Path(__file__).parent
_PACKAGE: Final = _FOLDER.parent
_LOCK: Final = 4_703_311_882_157_690_113
"""The key of the advisory lock: a random number that nothing else in the database uses."""
_LOCK_POLL_SECONDS: Final = 0.1


class MigrationError(ExampleServiceError):
    """The migrations were not applied. The message says why and what to do."""


async def upgrade(settings: Settings) -> tuple[Revisions, Revisions]:
    """Apply all pending migrations, or none if one fails.

    Waiting for a table that is in use is repeated in short intervals, so that the migration does
    not block the service.

    Returns:
        The revisions before and after.

    Raises:
        MigrationError: Another process holds the lock or uses a table for too long, or this version
            of the service does not know the revision of the database.
        sqlalchemy.exc.SQLAlchemyError, OSError: The database cannot be reached, or a statement
            failed.
    """
    engine = create_migration_engine(
        settings,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        lock_timeout_seconds=LOCK_TIMEOUT_SECONDS,
    )
    try:
        if engine.dialect.name == "sqlite":
            # SQLite runs only one writing transaction at a time, so no lock is needed.
            async with engine.begin() as connection:
                return await connection.run_sync(_upgrade)
        return await _upgrade_locked(engine)
    finally:
        await engine.dispose()


def domains_with_migrations() -> list[Path]:
    """The folders of the domains that have migrations. Their tables are in `models.py`."""
    return sorted(folder.parent for folder in _PACKAGE.glob("*/migrations"))


@cache
def head_revisions() -> Revisions:
    """The latest revisions that this version of the service has."""
    return frozenset(ScriptDirectory.from_config(_config()).get_heads())


@cache
def known_revisions() -> Revisions:
    """All revisions that this version of the service has."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return frozenset(each.revision for each in scripts)


def in_words(revisions: Revisions) -> str:
    """Format revisions for a message."""
    return ", ".join(sorted(revisions)) or "nothing"


async def schema_fault(database: Database) -> str | None:
    """Why this version of the service cannot use the database; None if it can.

    A newer schema is accepted, so that old instances keep serving until all are replaced.

    Raises:
        CircuitOpenError, DatabaseUnavailableError: The database is unavailable.
    """
    current, writable = await database.run(_read_schema)
    if fault := _schema_problem(current):
        return fault
    return None if writable else "the database is read-only; is it a standby?"


async def schema_fault_at_start(settings: Settings) -> str | None:
    """The same without a `Database`, so that failures do not count against its circuit.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: The database is unavailable.
    """
    limit_seconds = settings.database.statement_timeout_seconds
    engine = create_migration_engine(settings, statement_timeout_seconds=limit_seconds)
    try:
        async with engine.connect() as connection:
            return _schema_problem(await connection.run_sync(_current_revisions))
    finally:
        await engine.dispose()


def _schema_problem(current: Revisions) -> str | None:
    missing = head_revisions() - current
    if missing and not current:
        return "the database has no schema; run `example-service migrate`"
    if missing and current <= known_revisions():
        return "the schema is behind; run `example-service migrate`"
    return None


async def _read_schema(session: AsyncSession) -> tuple[Revisions, bool]:
    connection = await session.connection()
    current = await connection.run_sync(_current_revisions)
    if connection.dialect.name == "sqlite":
        return current, True
    return current, await session.scalar(text("SHOW transaction_read_only")) == "off"


async def _upgrade_locked(engine: AsyncEngine) -> tuple[Revisions, Revisions]:
    # The lock belongs to a transaction, because a pooler may use another connection for the next
    # one. It is polled, because a statement that waits for it would block migrations that wait for
    # all statements to end, such as CREATE INDEX CONCURRENTLY.
    async with engine.connect() as locking:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while not await locking.scalar(text(f"SELECT pg_try_advisory_xact_lock({_LOCK})")):
            await locking.rollback()
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"Another migration has been running for {LOCK_WAIT_SECONDS:g} seconds. "
                    "Look for it in pg_stat_activity, then try again."
                )
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        await locking.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        # The lock is released at the end of the transaction in any case.
        return await _upgrade_between(engine)


async def _upgrade_between(engine: AsyncEngine) -> tuple[Revisions, Revisions]:
    """Retry the migration until it gets the table locks, without blocking the service."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(_upgrade)
        except DBAPIError as error:
            if not is_lock_conflict(error):
                raise
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"A table has been in use for {LOCK_WAIT_SECONDS:g} seconds, probably by a "
                    "long report. Look for it in pg_stat_activity, then try again."
                ) from error
        await asyncio.sleep(LOCK_RETRY_SECONDS)


def _upgrade(connection: Connection) -> tuple[Revisions, Revisions]:
    before, heads = _current_revisions(connection), head_revisions()
    if unknown := before - known_revisions():
        raise MigrationError(
            f"The database is at revision {in_words(unknown)}, which this version of the service "
            "does not know: a newer version has migrated it. Use that one."
        )
    if before != heads:
        if connection.dialect.name != "sqlite":
            # Alembic must begin the transaction itself, because a migration may need to leave it.
            connection.rollback()
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "heads")
    return before, heads


def _config() -> Config:
    """The options that `alembic.ini` contains for alembic's command line."""
    locations = [str(domain / "migrations") for domain in domains_with_migrations()]
    config = Config()
    for option, value in {
        "script_location": str(_FOLDER),
        "version_locations": os.pathsep.join(locations),
        "path_separator": "os",
    }.items():
        config.set_main_option(option, value.replace("%", "%%"))
    return config


def _current_revisions(connection: Connection) -> Revisions:
    return frozenset(MigrationContext.configure(connection).get_current_heads())
