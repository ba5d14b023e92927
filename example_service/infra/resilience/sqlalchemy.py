"""A breaker around an SQLAlchemy engine: while the database is down, callers fail at once.

SQLAlchemy's events cannot be used for this: after some errors no event follows
`before_cursor_execute`, and no event reports how a COMMIT ended. But an engine calls its driver
only through methods of its dialect and its pool, so `guard_engine` wraps these methods. Each
guarded call begins and ends in one frame, so the permit is always handed back: after an error,
after a cancellation, or when an unfinished greenlet is freed.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import DBAPIError, StatementError

from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.nested_calls import count_once
from example_service.infra.resilience.rules.phases import is_uncounted

if TYPE_CHECKING:
    # Without greenlet, which synchronous engines do not need, this cannot be imported.
    from sqlalchemy.ext.asyncio import AsyncEngine

    from example_service.infra.resilience.rules.phases import Permit

R = TypeVar("R")

# The first characters of SQLSTATEs that mean that PostgreSQL cannot serve: connection exceptions,
# refused logins, no such database, out of resources, a server that shuts down, starts up or has
# crashed, and errors of its operating system.
_FAILURE_STATES = ("08", "28", "3D", "53", "57P", "58")
_QUERY_CANCELED = "57014"
_CONNECTING = "asyncpg.connect_utils"

# SQLite's NOMEM, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL and NOTADB. BUSY and LOCKED are missing,
# because they only mean that another connection is writing.
_FAILURE_CODES = frozenset({7, 10, 11, 13, 14, 15, 26})

PRIMARY_CODE = 0xFF
"""Masks the primary code of an extended SQLite result code."""

_guarded_dialects: "WeakSet[Dialect]" = WeakSet()
_current_call: "ContextVar[_Call | None]" = ContextVar("_current_call", default=None)


def is_database_failure(error: BaseException) -> bool:
    """Whether an exception means that the database cannot serve; for use as `is_failure`.

    It does if it invalidated the connection, if connecting or waiting failed, or if the server
    reports that it cannot work. Everything else is either reported by a healthy database, such as a
    violated constraint, a deadlock or an unknown table, or caused on this side, such as an
    exhausted pool. A cancelled statement is a failure if the server's message names a timeout, but
    not if a user cancelled it. In an exception group, one error that is a failure is enough.

    Args:
        error: What SQLAlchemy or the driver raised.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(is_database_failure(inner) for inner in error.exceptions)
    if isinstance(error, StatementError):
        is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return is_lost or (error.orig is not None and is_database_failure(error.orig))
    state = _sqlstate(error)
    if state is not None:
        if state == _QUERY_CANCELED:
            return _names_timeout(error)
        return state.startswith(_FAILURE_STATES) or _has_refused_connection(error)
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & PRIMARY_CODE in _FAILURE_CODES
    # Refused connections and expired time limits are OSErrors. Drivers have no common base class,
    # but PEP 249 gives their exceptions this name.
    is_operational = any(base.__name__ == "OperationalError" for base in type(error).__mro__)
    return isinstance(error, OSError) or (is_operational and not _is_pool_error(error))


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def _names_timeout(error: BaseException) -> bool:
    """Whether the first line of the message names a timeout. Other lines have details."""
    return "timeout" in str(error).partition("\n")[0]


def _has_refused_connection(error: BaseException) -> bool:
    """Whether asyncpg raised the error while connecting; other drivers have no SQLSTATE then.

    SQLAlchemy may have wrapped the error of the driver, which is then the cause.
    """
    links = (error, error.__cause__)
    frames = (frame for link in links if link for frame, _ in walk_tb(link.__traceback__))
    return any(frame.f_globals.get("__name__") == _CONNECTING for frame in frames)


def _is_pool_error(error: BaseException) -> bool:
    """Whether psycopg's pool raised the error; its errors are also named `OperationalError`."""
    return any(base.__module__.startswith("psycopg_pool") for base in type(error).__mro__)


def guard_engine(
    engine: "Engine | AsyncEngine",
    breaker: CircuitBreaker,
    *,
    is_failure: Callable[[Exception], bool] = is_database_failure,
) -> None:
    """Put a circuit breaker between an engine and its database.

    While the circuit refuses calls, statements raise `CircuitOpenError`, and so does everything
    that needs a connection, without waiting for the pool. Transactions can always be completed:
    COMMIT, ROLLBACK and similar statements are admitted.

    A successful statement or COMMIT is a success. A successful connect or ping is neither success
    nor failure, because a proxy in front of a dead database accepts connections, too.

    Args:
        engine: The engine, including its sessions, connections and `execution_options()`.
        breaker: The circuit breaker. Its parameters that judge outcomes have no effect here:
            `expected_exception`, `is_failure`, `is_success`, `is_failed_result` and `open_for`.
        is_failure: Called with the driver's own exception; see `is_database_failure`. Errors that
            lose the connection, and refusals of new connections, are always failures.

    Raises:
        ValueError: The engine is already guarded.

    Example:
        ```python
        from sqlalchemy import create_engine, text

        from example_service.infra.resilience import CircuitBreaker
        from example_service.infra.resilience.sqlalchemy import guard_engine

        engine = create_engine("sqlite://")
        guard_engine(engine, CircuitBreaker("database", failure_threshold=3))
        with engine.connect() as connection:
            print(connection.execute(text("SELECT 1")).scalar())
        engine.dispose()
        ```
        ```text
        1
        ```
    """
    sync_engine = engine if isinstance(engine, Engine) else engine.sync_engine
    if sync_engine.dialect in _guarded_dialects:
        raise ValueError(f"{engine!r} is already guarded")
    _guarded_dialects.add(sync_engine.dialect)
    _EngineGuard(sync_engine.dialect, breaker, is_failure).install(sync_engine)


def raise_if_open(breaker: CircuitBreaker) -> None:
    """Raise if the circuit is open, before preparing a session and a statement.

    A guarded engine refuses only when it needs a connection. Creating a session and a statement
    before that costs more than the refusal itself.

    Raises:
        CircuitOpenError: The circuit refuses.
    """
    # Not while half-open: acquiring and releasing a permit here would use up the one probe that a
    # fleet grants.
    if breaker.is_open:
        breaker.release(breaker.acquire())


class _Call:
    """A running guarded call. Calls that are made inside it are part of it.

    It is stored in a context variable, which tasks created inside the call inherit. `guard` becomes
    None when the call ends, so that later calls of these tasks are not part of it.
    """

    __slots__ = ("guard", "is_connect_refused", "permit")

    def __init__(self, guard: "_EngineGuard", permit: "Permit | None") -> None:
        self.guard: _EngineGuard | None = guard
        self.permit = permit
        self.is_connect_refused = False


class _EngineGuard:
    def __init__(
        self, dialect: Dialect, breaker: CircuitBreaker, is_failure: Callable[[Exception], bool]
    ) -> None:
        self._dialect = dialect
        self._breaker = breaker
        self._is_failure = is_failure

    def install(self, engine: Engine) -> None:
        """Wrap the methods of the dialect and of the pool."""
        dialect = self._dialect
        _wrap(dialect, "do_ping", self._use_database)
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            _wrap(dialect, name, self._execute)
        for name in ("do_commit", "do_commit_twophase", "do_release_savepoint"):
            _wrap(dialect, name, partial(self._end, True))
        # A rollback often follows a failure. Its success must not reset the failures in a row.
        for name in ("do_rollback_to_savepoint", "do_rollback_twophase"):
            _wrap(dialect, name, partial(self._end, False))
        event.listen(engine, "handle_error", self._on_error, retval=True)
        event.listen(engine, "engine_disposed", self._guard_pool)
        self._guard_pool(engine)

    def _guard_pool(self, engine: Engine) -> None:
        _wrap(engine.pool, "connect", self._check_out)
        # A private method, because no other one is called for `creator=` functions, too.
        _wrap(engine.pool, "_invoke_creator", self._connect)

    def _check_out(self, check_out: Callable[[], R]) -> R:
        """Take a connection from the pool, which may connect or ping: all of this is one call.

        While the circuit is closed, the call begins when the pool first contacts the database, so
        that time spent waiting for the pool does not count. In other states it begins before that:
        a refused caller must not wait for a pool that is empty because its connections hang.
        """
        with self._guarded(self._permit_unless_closed, proves_health=False):
            return check_out()

    def _use_database(self, method: Callable[..., R], *args: Any) -> R:
        """Connect or ping on behalf of the pool. It acquires the permit if the call has none."""
        call = _current_call.get()
        if call is not None and call.guard is self and call.permit is None:
            call.permit = self._breaker.acquire()
        return method(*args)

    def _connect(self, connect: Callable[..., R], *args: Any) -> R:
        """Connect on behalf of the pool, and note whether the server refused.

        Connection poolers refuse with SQLSTATEs that are no failure in other places.
        """
        try:
            return self._use_database(connect, *args)
        except Exception as error:
            call = _current_call.get()
            if call is not None and call.guard is self:
                call.is_connect_refused = self._is_refusal(error)
            raise

    def _is_refusal(self, error: BaseException) -> bool:
        """Whether a server refused the connection: with an SQLSTATE, or an error of the driver."""
        if isinstance(error, BaseExceptionGroup):
            return any(self._is_refusal(inner) for inner in error.exceptions)
        if _is_pool_error(error) or hasattr(error, "sqlite_errorcode"):
            return False
        return _sqlstate(error) is not None or isinstance(error, self._dialect.loaded_dbapi.Error)

    def _execute(self, execute: Callable[..., None], cursor: Any, *args: Any) -> None:
        # The last argument of each of these methods is the execution context.
        connection = args[-1].root_connection.connection
        with self._guarded(
            self._breaker.acquire, proves_health=True, connection=connection, cursor=cursor
        ):
            execute(cursor, *args)

    def _end(self, proves_health: bool, end: Callable[..., None], *args: Any, **kw: Any) -> None:
        """End a transaction or a savepoint.

        It is never refused. That would save the database little work, but lose the work of the
        transaction or leave it in an inconsistent state.
        """
        with self._guarded(self._permit_if_closed, proves_health=proves_health):
            end(*args, **kw)

    @contextmanager
    def _guarded(
        self,
        take_permit: "Callable[[], Permit | None]",
        *,
        proves_health: bool,
        connection: Any = None,
        cursor: Any = None,
    ) -> Iterator[None]:
        """Guard a block, unless it is already part of a guarded call.

        Args:
            take_permit: Returns the permit; None for a block that is not counted.
            proves_health: Whether the success of the block counts as a success of the database.
            connection: The driver's connection that the block uses, if any.
            cursor: The cursor that it uses, if any.

        Raises:
            CircuitOpenError: The circuit refused; the block does not run.
        """
        outer = _current_call.get()
        if outer is not None and outer.guard is self:
            yield
            return
        call = _Call(self, take_permit())
        _current_call.set(call)
        try:
            yield
        except BaseException as error:
            if call.permit is not None:
                self._settle_error(call, call.permit, error, connection, cursor)
            raise
        else:
            if call.permit is not None:
                settle = self._breaker.succeed if proves_health else self._breaker.release
                settle(call.permit)
        finally:
            call.guard = None
            _current_call.set(outer)

    def _permit_unless_closed(self) -> "Permit | None":
        return None if self._breaker.is_closed else self._breaker.acquire()

    def _permit_if_closed(self) -> "Permit | None":
        # Another thread may open the circuit after it was seen closed.
        with suppress(CircuitOpenError):
            return self._breaker.acquire() if self._breaker.is_closed else None
        return None

    def _settle_error(
        self, call: _Call, permit: "Permit", error: BaseException, connection: Any, cursor: Any
    ) -> None:
        failed = False
        try:
            failed = (
                isinstance(error, Exception)
                and (self._failed(error, connection, cursor) or call.is_connect_refused)
                and self._counts(permit, error)
            )
        finally:
            if failed:
                self._breaker.fail(permit, type(error).__name__)
            else:
                self._breaker.release(permit)

    def _failed(self, error: Exception, connection: Any, cursor: Any) -> bool:
        return self._is_failure(error) or (
            isinstance(error, self._dialect.loaded_dbapi.Error)
            and self._dialect.is_disconnect(error, connection, cursor)
        )

    def _on_error(self, context: ExceptionContext) -> BaseException | None:
        error = context.original_exception
        if isinstance(error, CircuitOpenError):
            # SQLAlchemy wraps a refusal that occurs while it reconnects. Return the refusal itself,
            # as a copy, because SQLAlchemy sets the original as the cause of what is returned.
            return copy.copy(error) if context.sqlalchemy_exception is not None else None
        is_fetch = context.execution_context is not None and context.statement is None
        if (
            is_fetch
            and isinstance(error, Exception)
            and (context.is_disconnect or self._is_failure(error))
            and not self._breaker.is_open
        ):
            # The statement itself has succeeded and was counted, but fetching its rows failed.
            with suppress(CircuitOpenError):
                permit = self._breaker.acquire()
                if self._counts(permit, error):
                    self._breaker.fail(permit, type(error).__name__)
                else:
                    self._breaker.release(permit)
        return None

    def _counts(self, permit: "Permit", error: Exception) -> bool:
        """Whether to count a failure, which an outer guard of the breaker may have counted."""
        return not is_uncounted(permit) and count_once(error, self._breaker)


def _wrap(owner: object, name: str, guard: Callable[..., Any]) -> None:
    """Replace a method of an object by `guard`, which gets the method as its first argument."""
    setattr(owner, name, partial(guard, getattr(owner, name)))
