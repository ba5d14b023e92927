"""Which errors of a driver mean that the database cannot serve now."""

import asyncpg
import pytest
from sqlalchemy import event, text

from example_service.core.settings import Settings
from example_service.infra.database.database import Database, open_database
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.database.failures import is_outage


async def ask_after(error: Exception, database: Database) -> None:
    """Ask something; a new connection meets an error when it is set up."""

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
    """The client may come back; it is no fault of the service."""
    async with open_database(Settings(environment="test")) as database:
        with pytest.raises(DatabaseUnavailableError):
            await ask_after(error, database)

    assert is_outage(error)


async def test_misuse_of_the_driver_stays_a_bug() -> None:
    """It has the same class, but does not pass."""
    error = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
    async with open_database(Settings(environment="test")) as database:
        with pytest.raises(asyncpg.InterfaceError):
            await ask_after(error, database)
