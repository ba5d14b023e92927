"""Which driver errors mean that the database is unavailable."""

import asyncpg
import pytest
from sqlalchemy import event, text

from example_service.core.settings import Settings
from example_service.infra.database.database import Database, open_database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.database.failures import (
    describe_error,
    is_outage,
    is_unavailable,
    may_repeat,
)


async def ask_after(error: Exception, database: Database) -> None:
    """Run a query; an error occurs while the new connection is set up."""

    def fail(*_: object) -> None:
        raise error

    event.listen(database.engine.sync_engine, "connect", fail)
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InterfaceError(
            "cannot call Connection.fetch(): the underlying connection is closed"
        ),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionResetError(),
        TimeoutError(),
    ],
)
async def test_a_server_that_dies_while_a_connection_is_set_up_means_unavailable(
    error: Exception,
) -> None:
    """The client may retry later; it is not a fault of the service."""
    async with open_database(Settings(environment="test")) as database:
        with pytest.raises(DatabaseUnavailableError):
            await ask_after(error, database)

    assert is_outage(error)


async def test_misuse_of_the_driver_is_not_reported_as_an_outage() -> None:
    """The error has the class of a lost connection, but a retry would not help."""
    error = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
    async with open_database(Settings(environment="test")) as database:
        with pytest.raises(asyncpg.InterfaceError):
            await ask_after(error, database)


@pytest.mark.parametrize("state", ["26000", "42P05"])
def test_errors_of_a_pooler_that_mixes_up_statements_name_the_setting(state: str) -> None:
    """Every such error costs a connection and a retry."""
    error = asyncpg.PostgresError('prepared statement "a" does not exist')
    error.sqlstate = state

    assert "set DATABASE__POOLER=true" in describe_error(error)


@pytest.mark.parametrize(
    "message",
    [
        "cache lookup failed for type 16385",
        "could not open relation with OID 16390",
        "tuple concurrently updated",
    ],
)
def test_a_concurrent_schema_change_is_retried(message: str) -> None:
    """In a new transaction, the server uses the new schema."""
    error = asyncpg.InternalServerError(message)
    error.sqlstate = "XX000"

    assert is_unavailable(error)
    assert may_repeat(error)
