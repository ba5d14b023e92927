"""How a pooled connection is checked before it is used."""

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
        """The method through which SQLAlchemy runs a coroutine of the driver."""
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
async def test_a_lost_connection_is_replaced_whatever_error_the_driver_raises(
    error: Exception,
) -> None:
    """The ping reports a stale connection to the pool instead of raising an error."""
    settings = Settings.model_validate(
        {"environment": "test", "database_url": "postgresql://me@127.0.0.1:1/payments"}
    )
    engine = create_engine(settings)
    connection: Any = LostConnection(error)

    assert engine.dialect.do_ping(connection) is False
