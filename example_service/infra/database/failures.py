"""Classification of database errors, mostly by their SQLSTATE.

Temporary failures of the database are not bugs of the service: they become
`DatabaseUnavailableError`, which clients see as status 503. All other errors are bugs, and are
raised unchanged.
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
"""The exceptions of the driver, including those of a lost connection."""

DATABASE_ERRORS: Final = (SQLAlchemyError, *DRIVER_ERRORS)
"""The exceptions that connecting, a statement or a COMMIT can raise."""

_READ_ONLY: Final = "25006"
_SERIALIZATION_FAILURE: Final = "40001"
_DEADLOCK: Final = "40P01"
_NO_SUCH_STATEMENT: Final = "26000"
_DUPLICATE_STATEMENT: Final = "42P05"

_TEMPORARY: Final = (
    "40",  # the transaction was rolled back: serialization failure, deadlock
    "55006",  # object in use
    "55P03",  # lock_timeout, or NOWAIT
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "57",  # operator intervention: a user cancelled the statement, or it took too long
    "72000",  # snapshot too old
    "42P01",  # undefined table: the schema is older than this version of the service
    "42703",  # undefined column: the same
    "42704",  # undefined type: the same
    "3F000",  # undefined schema: the same
    "42501",  # insufficient privilege: missing grants after a restore or a migration
    "54000",  # no transaction ids are left until a VACUUM
    _READ_ONLY,
    _NO_SUCH_STATEMENT,
    _DUPLICATE_STATEMENT,
)
"""Prefixes of the SQLSTATEs of temporary errors that do not count against the circuit."""

_END_OF_SESSION: Final = frozenset({"FATAL", "PANIC"})
"""The severities of errors after which the server or a pooler closes the connection."""

_POOLER_ERRORS: Final = frozenset({_NO_SUCH_STATEMENT, _DUPLICATE_STATEMENT})

_LOST_CONNECTION: Final = frozenset({_READ_ONLY, *_POOLER_ERRORS})
"""The connection no longer leads to the same server: a failover made it read-only, or a pooler has
assigned another one."""

_LOCK_CONFLICTS: Final = frozenset({"55P03", _DEADLOCK})

_ROLLED_BACK: Final = frozenset({_SERIALIZATION_FAILURE, _DEADLOCK, *_LOST_CONNECTION})
"""Nothing was committed, and a new transaction is unlikely to fail for the same reason."""

_SCHEMA_CHANGING: Final = (
    "cache lookup failed",
    "could not open relation with OID",
    "tuple concurrently updated",
)
"""Internal errors that PostgreSQL reports while its schema is being changed."""

_SQLITE_TEMPORARY: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_SCHEMA,
    }
)
_SQLITE_UNMIGRATED: Final = ("no such table", "no such column")


def is_unavailable(error: BaseException) -> bool:
    """Whether an error is temporary, so that the same work may succeed later."""
    if isinstance(error, PoolTimeoutError) or is_outage(error):
        return True
    driver_error = _driver_error(error)
    state = _sqlstate(driver_error)
    if state is not None:
        return state.startswith(_TEMPORARY) or _is_outdated_cache(driver_error)
    code = getattr(driver_error, "sqlite_errorcode", None)
    if code is None:
        return _is_outdated_cache(driver_error)
    return code & PRIMARY_CODE in _SQLITE_TEMPORARY or str(driver_error).startswith(
        _SQLITE_UNMIGRATED
    )


def is_outage(error: BaseException) -> bool:
    """Whether an error counts against the circuit of the database.

    A read-only server counts as a failure: after a failover, it is no longer the primary. So does
    the end of a session, whatever its code; poolers often use XX000.
    """
    driver_error = _driver_error(error)
    return (
        is_database_failure(error)
        or _sqlstate(driver_error) == _READ_ONLY
        or isinstance(driver_error, asyncpg.exceptions.TargetServerAttributeNotMatched)
        or _is_lost(driver_error)
        or _has_ended_session(driver_error)
    )


def loses_connection(error: BaseException) -> bool:
    """Whether this connection and all older ones must be closed."""
    return isinstance(error, TimeoutError) or _sqlstate(_driver_error(error)) in _LOST_CONNECTION


def may_repeat(error: BaseException) -> bool:
    """Whether the transaction was rolled back for a reason that a retry is likely to avoid."""
    driver_error = _driver_error(error)
    return _sqlstate(driver_error) in _ROLLED_BACK or _is_outdated_cache(driver_error)


def is_lock_conflict(error: BaseException) -> bool:
    """Whether waiting for a lock timed out or led to a deadlock."""
    return _sqlstate(_driver_error(error)) in _LOCK_CONFLICTS


def describe_error(error: BaseException) -> str:
    """The database's error message in one line, without the parameters of the statement."""
    if isinstance(error, PoolTimeoutError):
        return "every connection of the pool is in use"
    driver_error = _driver_error(error)
    if isinstance(driver_error, TimeoutError):
        return "no response in time"
    # Further lines contain details such as the values that violate a constraint.
    first_line = str(driver_error).partition("\n")[0] or type(driver_error).__name__
    is_of_pooler = _sqlstate(driver_error) in _POOLER_ERRORS
    if is_of_pooler or "unsupported startup parameter" in first_line:
        return f"{first_line}; behind a pooler, set DATABASE__POOLER=true"
    return first_line


def _driver_error(error: BaseException) -> BaseException:
    """The error of the driver that SQLAlchemy has wrapped."""
    if isinstance(error, StatementError) and error.orig is not None:
        error = error.orig
    is_adapted = getattr(type(error), "__module__", "").startswith("sqlalchemy.dialects")
    return error.__cause__ if is_adapted and error.__cause__ is not None else error


def _sqlstate(error: BaseException) -> str | None:
    state: Any = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_lost(error: BaseException) -> bool:
    """Whether the connection was closed, for example because the server crashed.

    The driver raises the class that it also uses for misuse, without a code.
    """
    return isinstance(error, asyncpg.InterfaceError) and "connection is closed" in str(error)


def _has_ended_session(error: BaseException) -> bool:
    """Whether the server has ended the session, for another reason than a temporary one."""
    severity = getattr(error, "severity_en", None) or getattr(error, "severity", None)
    state = _sqlstate(error)
    return severity in _END_OF_SESSION and not (state or "").startswith(_TEMPORARY)


def _is_outdated_cache(error: BaseException) -> bool:
    """Whether the driver has cached a plan or a type from before a change of the schema."""
    return isinstance(
        error,
        asyncpg.InvalidCachedStatementError | asyncpg.exceptions.OutdatedSchemaCacheError,
    ) or (
        isinstance(error, asyncpg.InternalServerError) and str(error).startswith(_SCHEMA_CHANGING)
    )
