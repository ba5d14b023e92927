"""What an error of the database means, decided in one place by its SQLSTATE.

A database that cannot do its work now is not a fault of the service: such errors become
`DatabaseUnavailableError`, which clients see as 503. Every other error is a bug and stays one.
"""

import sqlite3
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from example_service.infra.resilience.sqlalchemy import PRIMARY_CODE, is_database_failure

DRIVER_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What the driver raises by itself, also over a connection that is lost."""

DATABASE_ERRORS: Final = (SQLAlchemyError, *DRIVER_ERRORS)
"""What can leave a statement, a COMMIT or an attempt to connect."""

_READ_ONLY: Final = "25006"
_SERIALIZATION_FAILURE: Final = "40001"
_DEADLOCK: Final = "40P01"
_NO_SUCH_STATEMENT: Final = "26000"
_DUPLICATE_STATEMENT: Final = "42P05"

_NOT_NOW: Final = (
    "40",  # the transaction was rolled back: serialization failure, deadlock
    "55006",  # object in use
    "55P03",  # lock_timeout, or NOWAIT
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "57014",  # a user cancelled the statement, or it ran into statement_timeout
    "42P01",  # undefined table: the schema is behind this version of the service
    "42703",  # undefined column: the same
    "42501",  # insufficient privilege: what was restored or migrated is not granted yet
    "54000",  # no transaction ids are left until a VACUUM
    _READ_ONLY,
    _NO_SUCH_STATEMENT,
    _DUPLICATE_STATEMENT,
)
"""Beginnings of the SQLSTATEs after which the same work may succeed later, besides the failures
that open the circuit."""

_OF_POOLERS: Final = frozenset({_NO_SUCH_STATEMENT, _DUPLICATE_STATEMENT})

_LOST_CONNECTION: Final = frozenset({_READ_ONLY, *_OF_POOLERS})
"""The server behind the connection is no longer the one that the connection was made to: it was
demoted by a failover, or a pooler has put another one in its place."""

_LOCK_CONFLICTS: Final = frozenset({"55P03", _DEADLOCK})

_ROLLED_BACK: Final = frozenset({_SERIALIZATION_FAILURE, _DEADLOCK, *_LOST_CONNECTION})
"""Nothing was committed, and a new transaction does not repeat the conflict."""

_DDL_MEANWHILE: Final = (
    "cache lookup failed",
    "could not open relation with OID",
    "tuple concurrently updated",
)
"""Internal errors of a server whose schema is changed at this moment."""

_SQLITE_NOT_NOW: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_SCHEMA,
    }
)
_SQLITE_UNMIGRATED: Final = ("no such table", "no such column")


def is_unavailable(error: BaseException) -> bool:
    """Whether the database cannot serve now, and the same work may succeed later."""
    if isinstance(error, PoolTimeoutError) or is_outage(error):
        return True
    driver_error = _driver_error(error)
    state = _sqlstate(driver_error)
    if state is not None:
        return state.startswith(_NOT_NOW) or _is_outdated_cache(driver_error)
    code = getattr(driver_error, "sqlite_errorcode", None)
    if code is None:
        return _is_outdated_cache(driver_error)
    return code & PRIMARY_CODE in _SQLITE_NOT_NOW or str(driver_error).startswith(
        _SQLITE_UNMIGRATED
    )


def is_outage(error: BaseException) -> bool:
    """Whether an error counts against the circuit of the database.

    A server that refuses to write does: after a failover it is the wrong one.
    """
    driver_error = _driver_error(error)
    return (
        is_database_failure(error)
        or _sqlstate(driver_error) == _READ_ONLY
        or isinstance(driver_error, asyncpg.exceptions.TargetServerAttributeNotMatched)
        or _is_lost(driver_error)
    )


def loses_connection(error: BaseException) -> bool:
    """Whether this connection, and every older one, must not be used again."""
    return isinstance(error, TimeoutError) or _sqlstate(_driver_error(error)) in _LOST_CONNECTION


def may_repeat(error: BaseException) -> bool:
    """Whether the transaction was rolled back for a reason that a new one does not meet again."""
    driver_error = _driver_error(error)
    return _sqlstate(driver_error) in _ROLLED_BACK or _is_outdated_cache(driver_error)


def is_lock_conflict(error: BaseException) -> bool:
    """Whether a lock was not to be had in time, or only together with a deadlock."""
    return _sqlstate(_driver_error(error)) in _LOCK_CONFLICTS


def what_it_said(error: BaseException) -> str:
    """The error in one line, in the words of the database, without the values of a statement."""
    if isinstance(error, PoolTimeoutError):
        return "every connection of the pool is in use"
    driver_error = _driver_error(error)
    if isinstance(driver_error, TimeoutError):
        return "no answer in time"
    # Further lines have details, such as the values that violate a constraint.
    first_line = str(driver_error).partition("\n")[0] or type(driver_error).__name__
    is_of_pooler = _sqlstate(driver_error) in _OF_POOLERS
    if is_of_pooler or "unsupported startup parameter" in first_line:
        return f"{first_line}; behind a pooler, set DATABASE__POOLER=true"
    return first_line


def _driver_error(error: BaseException) -> BaseException:
    """The error of the driver itself, below the layers of SQLAlchemy."""
    if isinstance(error, StatementError) and error.orig is not None:
        error = error.orig
    is_adapted = getattr(type(error), "__module__", "").startswith("sqlalchemy.dialects")
    return error.__cause__ if is_adapted and error.__cause__ is not None else error


def _sqlstate(error: BaseException) -> str | None:
    state: Any = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_lost(error: BaseException) -> bool:
    """Whether the driver says that the connection is closed, as when a server dies meanwhile.

    It says so with the class that it has for misuse, too, and without any code.
    """
    return isinstance(error, asyncpg.InterfaceError) and "connection is closed" in str(error)


def _is_outdated_cache(error: BaseException) -> bool:
    """Whether a plan or a type that the driver remembers is older than the schema."""
    return isinstance(
        error,
        asyncpg.InvalidCachedStatementError | asyncpg.exceptions.OutdatedSchemaCacheError,
    ) or (isinstance(error, asyncpg.InternalServerError) and str(error).startswith(_DDL_MEANWHILE))
