"""How a pooled connection is asked whether it lives, before it is used."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from example_service.core.settings import Settings
from example_service.infra.database.engine import create_engine


class LostConnection:
    """A connection on which the driver raises an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run_async(self, _: Callable[[Any], Awaitable[Any]]) -> None:
        """What SQLAlchemy has a connection do."""
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("not connected"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_the_driver_says_of_a_lost_connection_it_is_replaced(
    error: Exception,
) -> None:
    """The pool is told that the connection is stale, not that the database has failed."""
    settings = Settings.model_validate(
        {"environment": "test", "database_url": "postgresql://me@127.0.0.1:1/payments"}
    )
    engine = create_engine(settings)
    connection: Any = LostConnection(error)

    assert engine.dialect.do_ping(connection) is False
