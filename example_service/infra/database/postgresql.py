"""Engines for PostgreSQL: connecting, time limits, and testing and closing connections."""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, AdaptedConnection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from example_service.core.settings import Settings
from example_service.core.settings.database_url import SYSTEM_CERTIFICATES, PostgreSQLAddress
from example_service.infra.database.failures import DRIVER_ERRORS, loses_connection

_RECYCLE_SECONDS: Final = 1800
"""Shorter than the idle timeouts of common firewalls and load balancers."""

_CLIENT_MARGIN_SECONDS: Final = 1.0
"""How much longer the client waits than the server's time limit. A server that still works cancels
the statement itself, and the connection stays usable."""

_CLOSE_SECONDS: Final = 0.05
"""How long closing one connection may take. The server need not reply, and connections are closed
one after another when the process ends."""

_READ_ONLY_PARAMETERS: Final = ("in_hot_standby", "default_transaction_read_only")

_IDLE_IN_TRANSACTION_SECONDS: Final = 60
"""The server ends a transaction after this time, so that a stopped process releases its locks."""


def pooled_engine(address: PostgreSQLAddress, settings: Settings) -> AsyncEngine:
    """Create the engine that serves requests. It connects on first use."""
    database = settings.database
    engine = postgresql_engine(
        address,
        settings,
        database.statement_timeout_seconds,
        pool_size=database.pool_size,
        max_overflow=0,
        pool_timeout=database.pool_timeout_seconds,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_SECONDS,
    )
    # The dialect's own ping begins and rolls back a transaction, and each of its four steps may
    # take as long as a statement.
    ping = partial(_is_usable, limit_seconds=database.connect_timeout_seconds)
    setattr(engine.dialect, "do_ping", ping)  # noqa: B010 - mypy wants no method assigned
    return engine


def postgresql_engine(
    address: PostgreSQLAddress,
    settings: Settings,
    statement_timeout_seconds: float,
    *,
    lock_timeout_seconds: float = 0.0,
    **options: Any,
) -> AsyncEngine:
    """Create an engine whose statements have a time limit.

    Args:
        address: The address of the database.
        settings: The settings with the connect timeout and whether a pooler is used.
        statement_timeout_seconds: The time limit of one statement, in seconds.
        lock_timeout_seconds: How long a statement may wait for a lock, in seconds; 0 for no
            separate limit.
        options: Further arguments of `create_async_engine`.
    """
    limits = {
        "statement_timeout": str(max(1, round(statement_timeout_seconds * 1000))),
        "lock_timeout": str(round(lock_timeout_seconds * 1000)),
        "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_SECONDS}s",
    }
    parameters = {"application_name": "example-service", **address.parameters}
    has_pooler = settings.database.pooler or address.has_pooler
    arguments = {
        "connection_class": _Connection,
        "timeout": settings.database.connect_timeout_seconds,
        "command_timeout": statement_timeout_seconds + _CLIENT_MARGIN_SECONDS,
        "user": address.user,
        "password": address.password,
        "database": address.database,
        "target_session_attrs": address.target,
        "direct_tls": address.direct_tls,
        "server_settings": parameters if has_pooler else parameters | limits,
        "async_creator_fn": partial(_connect, address.hosts, _tls_choices(address)),
        **(_WITHOUT_PREPARED_STATEMENTS if has_pooler else {}),
    }
    engine = create_async_engine(
        URL.create("postgresql+asyncpg"),
        connect_args=arguments,
        hide_parameters=True,
        # The statements rely on this level, so the server's default must not apply.
        isolation_level="READ COMMITTED",
        **options,
    )
    event.listen(engine.sync_engine, "handle_error", _close_lost_connection)
    if has_pooler:
        _adapt_to_pooler(engine, limits)
    return engine


def lift_transaction_timeout(connection: Connection) -> None:
    """Disable the server's time limit of this transaction. PostgreSQL has it since version 17."""
    connection.exec_driver_sql(
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'"
    )


_WITHOUT_PREPARED_STATEMENTS: Final[dict[str, Any]] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
"""With transaction pooling, the next transaction may run on another server connection, where these
statements are not prepared."""


def _adapt_to_pooler(engine: AsyncEngine, limits: dict[str, str]) -> None:
    """Set the time limits in each transaction, because a pooler may reject or lose them."""
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in limits.items())

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT {settings}")

    event.listen(engine.sync_engine, "begin", limit)
    # These look up types in two steps, which must run on the same server connection.
    for name in ("setup_asyncpg_json_codec", "setup_asyncpg_jsonb_codec"):
        setattr(engine.dialect, name, partial(_in_transaction, getattr(engine.dialect, name)))


async def _in_transaction(work: Callable[[Any], Awaitable[None]], connection: Any) -> None:
    async with connection._connection.transaction():  # noqa: SLF001 - SQLAlchemy's own hooks use it
        await work(connection)


class _Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
    """A connection that closes quickly even if its server does not reply."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Close the connection, and abort it if the server does not reply immediately.

        SQLAlchemy would wait for as long as a statement may take, or two seconds after an error,
        which would delay the response of a request that has failed already.
        """
        with suppress(TimeoutError):
            await super().close(timeout=_CLOSE_SECONDS)


async def _connect(
    hosts: Sequence[tuple[str, int]], tls_choices: Sequence[ssl.SSLContext | bool], **options: Any
) -> asyncpg.Connection:
    """Connect to the first host that accepts the connection. The time limit applies to each host.

    The driver would apply one limit to all hosts together, so that a host that does not reply uses
    up the time of the next. With `sslmode=prefer`, it would also look for certificates in HOME,
    which may belong to another user.
    """
    failure: Exception | None = None
    for host, port in hosts:
        for tls in [False] if host.startswith("/") else tls_choices:
            try:
                return await asyncpg.connect(host=host, port=port, ssl=tls, **options)
            except (asyncpg.InvalidAuthorizationSpecificationError, ConnectionError) as error:
                # The server may require TLS, or reject it: try the other choice.
                failure = error
            except Exception as error:  # noqa: BLE001 - any server may listen on this port
                failure = error if _is_clear(error) else _protocol_error(host, port, error)
                break
    if failure is None:
        raise ValueError("there is no host to connect to")
    raise failure


def _is_clear(error: Exception) -> bool:
    """Whether an error is clear without further explanation."""
    return isinstance(error, OSError | asyncpg.exceptions.TargetServerAttributeNotMatched) or (
        isinstance(error, asyncpg.PostgresError) and error.sqlstate is not None
    )


def _protocol_error(host: str, port: int, error: Exception) -> ConnectionError:
    """The error for a server that accepts connections but does not speak PostgreSQL's protocol."""
    unusable = ConnectionError(f"{host}:{port} cannot be used as a database: {error}")
    unusable.__cause__ = error
    return unusable


def _tls_choices(address: PostgreSQLAddress) -> list[ssl.SSLContext | bool]:
    """The TLS choices of an `sslmode`, in the order in which libpq tries them."""
    mode = address.ssl_mode
    if mode == "disable" or all(host.startswith("/") for host, _ in address.hosts):
        return [False]
    root = address.ssl_files.get("sslrootcert")
    context = ssl.create_default_context(cafile=None if root == SYSTEM_CERTIFICATES else root)
    context.set_alpn_protocols(["postgresql"])
    context.check_hostname = mode == "verify-full"
    if not mode.startswith("verify") and root is None:
        context.verify_mode = ssl.CERT_NONE
    if certificate := address.ssl_files.get("sslcert"):
        context.load_cert_chain(certificate, address.ssl_files.get("sslkey"))
    if mode == "allow":
        return [False, context]
    return [context, False] if mode == "prefer" else [context]


def _is_usable(connection: AdaptedConnection, *, limit_seconds: float) -> bool:
    """Whether the server replies on a connection and accepts writes.

    If not, the pool replaces this connection and all that are as old. After a failover, the new
    connections find the primary.
    """
    try:
        connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=limit_seconds))
    except DRIVER_ERRORS:
        return False
    # The server reports changes of these parameters without being asked; a pooler may not.
    reported = connection.driver_connection.get_settings()
    return all(getattr(reported, name, "off") == "off" for name in _READ_ONLY_PARAMETERS)


def _close_lost_connection(context: ExceptionContext) -> None:
    # After a timeout, a rollback would first wait for the driver to cancel the statement. It does
    # that over a new connection, which hangs as well if the server does not reply.
    if loses_connection(context.original_exception):
        context.is_disconnect = True
