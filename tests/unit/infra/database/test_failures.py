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


def answer(severity: str, state: str) -> asyncpg.PostgresError:
    """An error as the server, or a pooler in its place, sends it."""
    return asyncpg.PostgresError.new({"S": severity, "V": severity, "C": state, "M": "no"})


@pytest.mark.parametrize("state", ["XX000", "55000", "P0001"])
def test_the_end_of_a_session_is_an_outage_whatever_its_code(state: str) -> None:
    """Poolers end sessions with codes that mean a bug if a statement reports them."""
    assert is_outage(answer("FATAL", state))
    assert is_unavailable(answer("FATAL", state))
    assert not is_unavailable(answer("ERROR", state))


@pytest.mark.parametrize("state", ["25P03", "25P04"])
def test_a_session_that_was_ended_for_its_own_transaction_is_no_outage(state: str) -> None:
    """The database works, so its circuit stays closed."""
    assert is_unavailable(answer("FATAL", state))
    assert not is_outage(answer("FATAL", state))


@pytest.mark.parametrize("state", ["57000", "57014", "72000", "42704", "3F000"])
def test_what_passes_by_itself_or_after_a_migration_is_temporary(state: str) -> None:
    """The client may retry later, and the circuit stays closed."""
    assert is_unavailable(answer("ERROR", state))
    assert not is_outage(answer("ERROR", state))
