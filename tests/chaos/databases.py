"""The databases under test, and a view of them that bypasses the service."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import asyncpg

from tests.postgres import PostgresServer, running_postgres

_PENDING = "SELECT count(*) FROM payments WHERE status = 'pending'"
_POLL_SECONDS = 2.0


class Database(Protocol):
    """What a storm needs to know about a database."""

    @property
    def name(self) -> str:
        """The name for the report."""

    @property
    def url(self) -> str:
        """`DATABASE_URL` of the service."""

    async def pending(self) -> int | None:
        """The number of pending payments, or None while the database cannot tell."""


class PostgresDatabase:
    """A real PostgreSQL, which can crash and come back.

    Args:
        server: The running server.
    """

    name = "PostgreSQL"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """`DATABASE_URL` of the service."""
        return self._server.url

    async def pending(self) -> int | None:
        """The number of pending payments, or None while the database cannot tell."""
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                connection = await asyncpg.connect(self._server.url)
                try:
                    return int(await connection.fetchval(_PENDING))
                finally:
                    connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None

    async def crash(self, down_seconds: float) -> None:
        """Crash the database, and start it again after that many seconds."""
        await asyncio.to_thread(self._server.crash)
        await asyncio.sleep(down_seconds)
        await asyncio.to_thread(self._server.start)


class SqliteDatabase:
    """An SQLite file.

    Args:
        path: The path of the file.
    """

    name = "SQLite"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def url(self) -> str:
        """`DATABASE_URL` of the service."""
        return f"sqlite:///{self._path}"

    async def pending(self) -> int | None:
        """The number of pending payments, or None while the database cannot tell."""
        try:
            with closing(sqlite3.connect(self._path, timeout=0)) as connection:
                return int(connection.execute(_PENDING).fetchone()[0])
        except sqlite3.OperationalError:
            return None


@contextmanager
def running_database(name: str, folder: Path) -> Iterator[Database]:
    """Provide an empty database: `postgresql` or `sqlite`."""
    if name == "sqlite":
        yield SqliteDatabase(folder / "database.sqlite3")
        return
    with running_postgres() as server:
        yield PostgresDatabase(server)
