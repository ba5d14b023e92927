"""Transactions on the database, guarded by a circuit breaker."""

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
    describe_error,
    is_outage,
    is_unavailable,
    may_repeat,
)
from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.infra.resilience.sqlalchemy import guard_engine, raise_if_open

logger = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE_BREAKER: Final = "database"


def database_breaker(
    registry: CircuitBreakerRegistry = circuit_breaker_registry,
) -> CircuitBreaker:
    """Return the breaker that guards the database, created on first use.

    A statement counts as a failure after 1.5 seconds, so that a hanging database opens the circuit
    before the first request or readiness check times out. One call then probes every two seconds.
    There is no backoff: a growing wait would outlast the outage, and a probe costs very little. The
    settings `CIRCUIT_BREAKERS__DATABASE__...` override these values.
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
    """Runs transactions.

    Args:
        engine: The engine of the database. The breaker is attached to it.
        breaker: The breaker that guards the engine.
    """

    def __init__(self, engine: AsyncEngine, breaker: CircuitBreaker) -> None:
        guard_engine(engine, breaker, is_failure=is_outage)
        self.engine = engine
        self._breaker = breaker
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run one unit of work in a transaction, and retry it once if that is safe.

        It is retried in a new transaction if the first one was rolled back for a temporary reason:
        a deadlock, a conflict with another transaction, a statement that was prepared before a
        migration, or a server that became read-only in a failover.

            payment = await database.run(lambda session: session.get(Payment, payment_id))

        Args:
            work: The function to run in the transaction. It may run twice, so it must not have
                effects outside the transaction.

        Raises:
            CircuitOpenError, DatabaseUnavailableError: As in `transaction()`.
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
        """A transaction that is committed at the end of the block, or rolled back if it raises.

        Keep changes that belong together in one block, and wait for nothing but the database inside
        it. Report the result after the block, when it is committed. Use `run()` for work that may
        be repeated.

        Raises:
            CircuitOpenError: The circuit of the database is open. No statement was sent.
            DatabaseUnavailableError: The database is temporarily unavailable: it cannot be reached,
                does not reply in time, has no free connection, or has rolled the transaction back
                for a temporary reason. If this is raised by the commit, the transaction may have
                been committed.
        """
        raise_if_open(self._breaker)
        try:
            async with self._sessions.begin() as session:
                yield session
        except DATABASE_ERRORS as error:
            if is_unavailable(error):
                raise DatabaseUnavailableError(describe_error(error)) from error
            raise


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database, and close its connections at the end of the block."""
    engine = create_engine(settings)
    try:
        yield Database(engine, database_breaker())
    finally:
        await engine.dispose()
