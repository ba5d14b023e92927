"""The database as the application holds it: one engine, guarded by one breaker."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from example_service.core.settings import Settings
from example_service.infra.database.engine import create_engine
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.database.failures import (
    DATABASE_ERRORS,
    is_outage,
    is_unavailable,
    may_repeat,
    what_it_said,
)
from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.sqlalchemy import ask_admission, guard_engine

logger = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE_BREAKER: Final = "database"


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
        guard_engine(engine, breaker, is_failure=is_outage)
        self.engine = engine
        self._breaker = breaker
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do one unit of work in a transaction, and once more where that cannot harm.

        It is repeated in a new transaction where the first one was rolled back for a reason that
        is gone: a deadlock, a conflict with another transaction, a statement that was prepared
        before a migration, a server that a failover has made read-only.

            payment = await database.run(lambda session: session.get(Payment, payment_id))

        Args:
            work: What is done in the transaction. It may run twice, so it changes nothing else.

        Raises:
            CircuitOpenError, DatabaseUnavailableError: As `transaction()` does.
        """
        try:
            async with self.transaction() as session:
                return await work(session)
        except DatabaseUnavailableError as error:
            if error.__cause__ is None or not may_repeat(error.__cause__):
                raise
            logger.info("A transaction is repeated", extra={"reason": str(error)})
        async with self.transaction() as session:
            return await work(session)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One unit of work: committed when the block ends, rolled back when it raises.

        What has to happen together happens in one block, and what waits for anything but the
        database stays out of it. An answer that reports the work is given after the block, so that
        it reports nothing that was not committed. Use `run()` for work that may be repeated.

        Raises:
            CircuitOpenError: If the circuit of the database is open; nothing was asked.
            DatabaseUnavailableError: If the database cannot serve now: it cannot be reached, does
                not answer in time, has no connection left, or has rolled back for a reason that
                passes. It may have committed where that happens at the end.
        """
        ask_admission(self._breaker)
        try:
            async with self._sessions.begin() as session:
                yield session
        except DATABASE_ERRORS as error:
            if is_unavailable(error):
                raise DatabaseUnavailableError(what_it_said(error)) from error
            raise


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Hand out the database until the end of the block, which closes its connections."""
    engine = create_engine(settings)
    try:
        yield Database(engine, database_breaker())
    finally:
        await engine.dispose()
