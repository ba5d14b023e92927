"""The database as the application holds it: one engine, guarded by one breaker."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from example_service.core.settings import Settings
from example_service.infra.database.engine import create_engine
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.sqlalchemy import (
    ask_admission,
    guard_engine,
    is_database_failure,
)

DATABASE_BREAKER: Final = "database"

_PRIMARY_CODE: Final = 0xFF
_LOCKED_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def database_breaker(
    registry: CircuitBreakerRegistry = circuit_breaker_registry,
) -> CircuitBreaker:
    """Return the breaker that guards the database, made when it is first asked for.

    A statement that still runs after a second and a half counts as a failure, so that a database
    which hangs opens the circuit before the first request, or a check of readiness, has given up.
    Every two seconds one call then finds out whether it is back: a wait that grew would outlast the
    outage, and one call more costs neither side anything. The settings
    `CIRCUIT_BREAKERS__DATABASE__...` win over what is written here.
    """
    return registry.get_or_create(
        DATABASE_BREAKER,
        failure_threshold=3,
        recovery_timeout=2.0,
        backoff=Backoff(multiplier=1.0),
        half_open_max_calls=1,
        slow_call_duration=1.5,
    )


class Database:
    """Hands out transactions.

    Args:
        engine: The engine; it is guarded from now on.
        breaker: Its guard.
    """

    def __init__(self, engine: AsyncEngine, breaker: CircuitBreaker) -> None:
        guard_engine(engine, breaker)
        self.engine = engine
        self._breaker = breaker
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One unit of work: committed when the block ends, rolled back when it raises.

        What has to happen together happens in one block, and what waits for anything but the
        database stays out of it. An answer that tells of the work is given after the block, so that
        nothing is told which was not committed.

        Raises:
            CircuitOpenError: If the circuit of the database is open; nothing was asked.
            DatabaseUnavailableError: If the database cannot be reached, does not answer in time or
                has no connection left. It may have committed where that happens at the end.
        """
        ask_admission(self._breaker)
        try:
            async with self._sessions.begin() as session:
                yield session
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            if _is_unavailable(error):
                raise DatabaseUnavailableError(f"{type(error).__name__} of the database") from error
            raise


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Hand out the database until the end of the block, which closes its connections."""
    engine = create_engine(settings)
    try:
        yield Database(engine, database_breaker())
    finally:
        await engine.dispose()


def _is_unavailable(error: Exception) -> bool:
    """Whether the same work may succeed later, without anybody changing anything."""
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        # The pool has no free connection.
        return True
    busy = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    if isinstance(busy, int) and busy & _PRIMARY_CODE in _LOCKED_CODES:
        return True
    return is_database_failure(error)
