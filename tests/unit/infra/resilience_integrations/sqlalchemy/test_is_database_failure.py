"""The rule for errors of a database, used on its own."""

import asyncio
import sqlite3
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from example_service.infra.resilience.sqlalchemy import (
    is_database_failure,
)
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience_integrations.sqlalchemy.faulty_engine import (
    DISK_ERROR,
    DriverError,
    FreeConnectionTimeout,
    InheritedOperationalError,
    PoolTimeout,
    breaker_of,
    cancelled,
    select_one,
    sqlite_error,
)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        InheritedOperationalError(),
        DISK_ERROR,
        sqlite_error("unable to open database file", sqlite3.SQLITE_CANTOPEN),
        sqlite_error("database or disk is full", sqlite3.SQLITE_FULL),
        *(
            DriverError(sqlstate=state)
            for state in ("08003", "08006", "28P01", "3D000", "53100", "53300", "57P01", "57P03")
        ),
        cancelled("canceling statement due to statement timeout"),
        cancelled("<class 'X'>: canceling statement due to lock timeout"),
        cancelled("query execution canceled due to statement timeout"),
        DriverError("canceling statement due to statement timeout\nCONTEXT: f()", pgcode="57014"),
        DriverError(sqlstate="58030"),
        DriverError(pgcode="08006"),
        OperationalError("SELECT 1", {}, DISK_ERROR),
        InterfaceError("SELECT 1", {}, DriverError(), connection_invalidated=True),
        ExceptionGroup("hosts", [ValueError(), ConnectionRefusedError()]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [DISK_ERROR])]),
        BaseExceptionGroup("cancelled", [asyncio.CancelledError(), DISK_ERROR]),
    ],
    ids=repr,
)
def test_database_failure(error: BaseException) -> None:
    """The database was unreachable, timed out, or reported that it cannot work."""
    assert is_database_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        PoolTimeoutError("QueuePool limit reached"),
        PoolTimeout(),
        FreeConnectionTimeout(),
        OperationalError("SELECT 1", {}, PoolTimeout()),
        cancelled("canceling statement due to user request"),
        cancelled("canceling statement due to user request\nCONTEXT: reset_statement_timeout()"),
        cancelled("query execution canceled"),
        ExceptionGroup("answers", [ValueError(), DriverError(sqlstate="23505")]),
        BaseExceptionGroup("cancelled", [asyncio.CancelledError()]),
        sqlite3.IntegrityError("UNIQUE constraint failed"),
        sqlite_error("no such table", sqlite3.SQLITE_ERROR),
        sqlite_error("database is locked", sqlite3.SQLITE_BUSY),
        sqlite_error("database table is locked", sqlite3.SQLITE_LOCKED_SHAREDCACHE),
        *(
            DriverError(sqlstate=state)
            for state in ("23505", "22012", "25P02", "40001", "40P01", "42501", "42P01", "55P03")
        ),
        IntegrityError("INSERT", {}, DriverError(sqlstate="23505")),
        StatementError("wrong", "SELECT 1", {}, None),
        StatementError("wrong", "SELECT 1", {}, ValueError()),
        InterfaceError("SELECT 1", {}, DriverError()),
    ],
    ids=repr,
)
def test_no_database_failure(error: BaseException) -> None:
    """The database has answered, or was never queried."""
    assert not is_database_failure(error)


def raised_in(module: str, error: Exception) -> Exception:
    """The error, raised by a function of the given module."""
    namespace: dict[str, Any] = {"__name__": module, "error": error}
    exec("def fail(): raise error", namespace)  # noqa: S102
    try:
        namespace["fail"]()
    except Exception as raised:  # noqa: BLE001 - This catches `error`.
        return raised
    raise AssertionError


@pytest.mark.parametrize("state", ["XX000", "55000", "42501"])
def test_refusal_while_asyncpg_connects_is_a_failure(state: str) -> None:
    """This works without a guarded engine or any engine, whatever the server's SQLSTATE."""
    refusal = raised_in("asyncpg.connect_utils", DriverError(sqlstate=state))
    translated = DriverError(sqlstate=state)
    translated.__cause__ = refusal

    assert is_database_failure(refusal)
    assert is_database_failure(OperationalError(None, None, translated))
    assert not is_database_failure(raised_in("asyncpg.protocol", DriverError(sqlstate=state)))


def test_rule_for_a_block_of_one_s_own(clock: FakeClock) -> None:
    """`is_failure=is_database_failure` distinguishes failures from answers without a guard."""
    breaker = breaker_of(clock, failure_threshold=1, is_failure=is_database_failure)
    engine = create_engine("sqlite:////missing/db")
    with pytest.raises(IntegrityError), breaker:
        raise IntegrityError("INSERT", {}, DriverError(sqlstate="23505"))
    assert breaker.is_closed

    with pytest.raises(OperationalError), breaker:
        select_one(engine)
    assert breaker.is_open
