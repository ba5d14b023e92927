"""SQLite engines in which every step can be made to fail."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import (
    OperationalError,
)
from sqlalchemy.orm import Session

from example_service.infra.resilience import (
    CircuitBreaker,
)
from example_service.infra.resilience.testing import FakeClock


def sqlite_error(message: str, code: int) -> sqlite3.OperationalError:
    """The error that SQLite raises for a result code."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


class DriverError(Exception):
    """An exception with the names and marks that drivers use."""

    def __init__(self, message: str = "driver", **marks: object) -> None:
        super().__init__(message)
        vars(self).update(marks)


def cancelled(message: str) -> DriverError:
    """The error of PostgreSQL for a statement that it has cancelled."""
    return DriverError(message, sqlstate="57014")


class InheritedOperationalError(type("OperationalError", (Exception,), {})):  # type: ignore[misc]
    """A driver's subclass of its PEP 249 class, such as psycopg's ConnectionTimeout."""


class PoolTimeout(InheritedOperationalError):  # noqa: N818 - The real one has this name.
    """An error with the name and module of the one in psycopg_pool."""

    __module__ = "psycopg_pool"


class FreeConnectionTimeout(PoolTimeout):
    """A subclass of that error."""


DISK_ERROR = sqlite_error("disk I/O error", sqlite3.SQLITE_IOERR_READ)

CONNECTION_LOST = sqlite3.ProgrammingError("Cannot operate on a closed database.")

SELECT = text("SELECT 1")


class Faults:
    """The faults by method of the driver; initially there are none."""

    def __init__(self) -> None:
        self.connect: Exception | None = None
        self.execute: Exception | None = None
        self.fetch: Exception | None = None
        self.commit: Exception | None = None
        self.execute_once: list[Exception] = []
        self.executed: list[str] = []
        self.before_execute: Callable[[], object] = bool

    def connection_class(self) -> type[sqlite3.Connection]:
        """The class of a driver's connection with these faults."""
        faults = self

        class Cursor(sqlite3.Cursor):
            def execute(self, sql: str, parameters: Any = (), /) -> "Cursor":
                faults.executed.append(sql)
                faults.before_execute()
                raise_if(faults.execute_once.pop() if faults.execute_once else faults.execute)
                return super().execute(sql, parameters)

            def fetchmany(self, size: int | None = 1) -> list[Any]:
                raise_if(faults.fetch)
                return super().fetchmany(size)

        class Connection(sqlite3.Connection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                raise_if(faults.connect)
                super().__init__(*args, **kwargs)

            def cursor(self, factory: Any = Cursor) -> Any:
                return super().cursor(factory)

            def commit(self) -> None:
                raise_if(faults.commit)
                super().commit()

        return Connection


def raise_if(error: Exception | None) -> None:
    """Raise a fault, if there is one."""
    if error is not None:
        raise error


def breaker_of(clock: FakeClock, **parameters: Any) -> CircuitBreaker:
    """A breaker like `breaker`, with other parameters."""
    parameters = {"failure_threshold": 2, "success_threshold": 1, **parameters}
    return CircuitBreaker("db", recovery_timeout=10.0, clock=clock, registry=None, **parameters)


MakeEngine = Callable[..., Engine]


def half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """Open the circuit, and let its wait end."""
    breaker.force_open("for a second", seconds=1.0)
    clock.advance(1.0)
    assert breaker.is_half_open


def select_one(engine: Engine) -> int:
    """Select a number in a session."""
    with Session(engine) as session:
        number: int = session.execute(SELECT).scalar_one()
        return number


def open_by_faults(engine: Engine, faults: Faults) -> None:
    """Make statements fail until the circuit is open, then remove the fault."""
    faults.execute = DISK_ERROR
    for _ in range(2):
        with pytest.raises(OperationalError):
            select_one(engine)
    faults.execute = None
