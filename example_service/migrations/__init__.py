"""The schema of the database: its migrations, how they are applied, and whether they are.

Nothing but `example-service migrate` applies them. It may be started several times at once: one
does the work, the others wait for it and find nothing left to do.
"""

import asyncio
import time
from functools import cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from example_service.core.exceptions import ExampleServiceError
from example_service.core.settings import Settings
from example_service.infra.database.database import Database
from example_service.infra.database.engine import create_migration_engine

LOCK_WAIT_SECONDS: Final = 120.0
STATEMENT_TIMEOUT_SECONDS: Final = 600.0

_FOLDER: Final = Path(__file__).parent
_LOCK: Final = 4_703_311_882_157_690_113
"""Key of the advisory lock, drawn once; any number that nothing else in the database uses."""
_LOCK_POLL_SECONDS: Final = 0.1


class MigrationError(ExampleServiceError):
    """The migrations were not applied; the text says why and what to do."""


async def upgrade(settings: Settings) -> tuple[str | None, str]:
    """Apply every migration that the database lacks, all of them or none.

    Returns:
        The revisions before and after; None before the first.

    Raises:
        MigrationError: If another process holds the lock for too long, or the database is at a
            revision that this version of the service does not know.
        sqlalchemy.exc.SQLAlchemyError, OSError: If the database cannot be reached, or refuses.
    """
    engine = create_migration_engine(settings, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    try:
        if engine.dialect.name == "sqlite":
            # Its transactions are a lock by themselves.
            async with engine.begin() as connection:
                return await connection.run_sync(_upgrade)
        return await _upgrade_locked(engine)
    finally:
        await engine.dispose()


@cache
def head_revision() -> str:
    """The revision that this version of the service works with."""
    head = ScriptDirectory(str(_FOLDER)).get_current_head()
    if head is None:
        raise MigrationError("There is no migration.")
    return head


@cache
def known_revisions() -> frozenset[str]:
    """Every revision that this version of the service knows, the last one included."""
    return frozenset(one.revision for one in ScriptDirectory(str(_FOLDER)).walk_revisions())


async def schema_fault(database: Database) -> str | None:
    """Say why this version of the service cannot work with the database; None if it can.

    A schema that a newer version has migrated will do: until all instances have been replaced, the
    old ones serve on.

    Raises:
        CircuitOpenError, DatabaseUnavailableError: If the database cannot tell.
    """
    current, writable = await database.run(_look)
    if current is None:
        return "the database has no schema; run `example-service migrate`"
    if current != head_revision() and current in known_revisions():
        return "the schema is behind; run `example-service migrate`"
    return None if writable else "the database is read-only; is it a standby?"


async def _look(session: AsyncSession) -> tuple[str | None, bool]:
    connection = await session.connection()
    current = await connection.run_sync(_current_revision)
    if connection.dialect.name == "sqlite":
        return current, True
    return current, await session.scalar(text("SHOW transaction_read_only")) == "off"


async def _upgrade_locked(engine: AsyncEngine) -> tuple[str | None, str]:
    # Whoever waits inside a transaction would in turn keep waiting a migration that waits for all
    # transactions to end, such as one which builds an index concurrently. So this asks repeatedly.
    async with engine.connect() as locking:
        await locking.execution_options(isolation_level="AUTOCOMMIT")
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while not await locking.scalar(text(f"SELECT pg_try_advisory_lock({_LOCK})")):
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"Another migration has been running for {LOCK_WAIT_SECONDS:g} seconds. "
                    "Look for it in pg_stat_activity, then try again."
                )
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        # The lock is given back with its connection, whatever happens.
        async with engine.connect() as connection:
            return await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> tuple[str | None, str]:
    before, head = _current_revision(connection), head_revision()
    if before is not None and before not in known_revisions():
        raise MigrationError(
            f"The database is at revision {before}, which this version of the service does not "
            "know: a newer version has migrated it. Use that one."
        )
    if before != head:
        if connection.dialect.name != "sqlite":
            # The transaction is alembic's own, for a migration may have to leave it for a while.
            connection.rollback()
        config = Config()
        config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, head


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
