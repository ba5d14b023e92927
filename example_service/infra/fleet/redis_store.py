"""A store in Redis or Valkey, for processes on several machines.

    {PREFIX}:state            hash: epoch, counter
    {PREFIX}:members          sorted set: members by the time of their last heartbeat
    {PREFIX}:circuits         sorted set: circuit names by the time their record expires
    {PREFIX}:circuit:NAME     string: version and record
    {PREFIX}:changes:DB       channel: clock, name, version and record of each write

Names are percent-encoded. The channel has the number of the database in its name, because the
databases of a server share their channels. The braces place all keys in the same slot of a cluster.
The scripts in `lua/` read the clock with TIME. Each process uses one connection for commands and
one for subscriptions.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote, urlsplit

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from example_service.core.fault_log import FaultLog
from example_service.core.settings.model import RedisSettings
from example_service.infra.fleet.record import ENDLESS_SECONDS, Record, record_from_json
from example_service.infra.fleet.store import Beat, Change, Notice, Snapshot, StoreError, Written

SILENT_SECONDS: Final = 3.0
PING_SECONDS: Final = 1.0

T = TypeVar("T")


class RedisStore:
    """A store in Redis or Valkey.

    Args:
        url: A `redis://`, `rediss://` or `unix://` URL, optionally with user, password and
            database.
        prefix: The prefix of all keys. Services that share a server need different prefixes.
        timeout_seconds: The time limit of each operation, in seconds.
    """

    def __init__(self, url: str, *, prefix: str, timeout_seconds: float) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._prefix = f"{{{quote(prefix, safe='')}}}"
        self._state = f"{self._prefix}:state"
        self._members = f"{self._prefix}:members"
        self._circuits = f"{self._prefix}:circuits"
        # The client connects on first use. It does not retry, because the member does.
        self._client = redis.Redis.from_url(
            url,
            max_connections=2,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            decode_responses=True,
            encoding_errors="replace",
        )
        database = self._client.connection_pool.connection_kwargs.get("db", 0)
        self._channel = f"{self._prefix}:changes:{database}"
        self._scripts = {
            name: self._client.register_script(_script(name)) for name in ("beat", "read")
        }
        self._one_at_a_time = asyncio.Lock()
        self.faults: Final = FaultLog(
            f"The fleet cannot be reached at {self.address}: %s. This process works on its own.",
            f"The fleet is back at {self.address}.",
        )
        # Few of the thousands of lines change between two reads, so parsed lines are cached.
        self._parsed: dict[str, tuple[str, Record]] = {}

    @property
    def address(self) -> str:
        """The URL without user, password and query."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    async def connect(self) -> None:
        """Close the connections of an earlier session. The next operation opens a new one."""
        await self._with_time_limit(self._client.connection_pool.disconnect())

    async def beat(self, member: str, known: int) -> Beat:
        """Run `beat.lua`."""
        now, epoch, counter, members = await self._run(
            "beat",
            [self._state, self._members],
            [member, known, uuid.uuid4().hex, int(SILENT_SECONDS * 1000), ENDLESS_SECONDS * 1000],
        )
        return Beat(int(now), epoch, int(counter), int(members))

    async def read(self) -> Snapshot:
        """Run `read.lua`."""
        now, epoch, counter, found = await self._run(
            "read", [self._state, self._circuits], [f"{self._prefix}:circuit:"]
        )
        # Parsing thousands of records would block the event loop.
        records = await asyncio.to_thread(self._parse, found.splitlines())
        return Snapshot(int(now), epoch, int(counter), records)

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """Run `write.lua` for each change, in one round trip."""
        script = _script("write")
        async with self._one_at_a_time:
            pipeline = self._client.pipeline(transaction=False)
            for change in changes:
                pipeline.eval(script, 3, *self._arguments(change, known))
            replies = await self._with_time_limit(pipeline.execute())
        now, accepted, current = 0, set(), {}
        for change, (at, written, stored) in zip(changes, replies, strict=True):
            now = int(at)
            current[change.name] = _record(stored)
            if written:
                accepted.add(change.name)
        return Written(now, frozenset(accepted), current)

    async def changes(self) -> AsyncIterator[Notice | None]:
        """Subscribe to the channel, and send a ping after `PING_SECONDS` without a message."""
        pubsub = self._client.pubsub()
        try:
            await self._with_time_limit(pubsub.subscribe(self._channel))
            is_silent = False
            while True:
                message = await self._message(pubsub, PING_SECONDS)
                if message is None:
                    if is_silent:
                        raise StoreError("no reply to a ping on the listening connection")
                    await self._with_time_limit(pubsub.ping())
                    is_silent = True
                    continue
                is_silent = False
                if message["type"] == "subscribe":
                    yield None
                elif message["type"] == "message":
                    yield _notice(message["data"])
        finally:
            with contextlib.suppress(Exception):
                await self._with_time_limit(pubsub.aclose())  # type: ignore[no-untyped-call]

    async def close(self, member: str) -> None:
        """Remove the member from the sorted set, and close the connections."""
        with contextlib.suppress(StoreError):
            await self._with_time_limit(self._client.zrem(self._members, member))
        with contextlib.suppress(StoreError):
            await self._with_time_limit(self._client.aclose())

    def _parse(self, lines: list[str]) -> dict[str, Record]:
        self._parsed = {line: self._parsed.get(line) or _named_record(line) for line in lines}
        return dict(self._parsed.values())

    def _arguments(self, change: Change, known: int) -> list[Any]:
        name = _quoted(change.name)
        return [
            self._state,
            self._circuits,
            f"{self._prefix}:circuit:{name}",
            name,
            change.expected,
            change.record.to_json(),
            change.kept,
            known,
            self._channel,
            ENDLESS_SECONDS * 1000,
        ]

    async def _run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        registered = self._scripts[script]
        async with self._one_at_a_time:
            return await self._with_time_limit(registered(keys=keys, args=arguments))

    async def _message(self, pubsub: Any, seconds: float) -> dict[str, Any] | None:
        message: dict[str, Any] | None
        try:
            message = await pubsub.get_message(timeout=seconds)
        except (RedisError, OSError) as error:
            raise StoreError(_text(error)) from error
        return message

    async def _with_time_limit(self, operation: Awaitable[T]) -> T:
        """Await an operation with the time limit.

        Raises:
            StoreError: The operation failed or timed out.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await operation
        except (RedisError, OSError) as error:
            raise StoreError(_text(error)) from error


def redis_store(settings: RedisSettings) -> RedisStore | None:
    """The store at the configured URL, which connects on first use; None if no URL is set."""
    if settings.url is None:
        return None
    return RedisStore(
        settings.url.get_secret_value(),
        prefix=settings.prefix,
        timeout_seconds=settings.timeout_seconds,
    )


@cache
def _script(name: str) -> str:
    return files(__package__).joinpath("lua", f"{name}.lua").read_text()


def _quoted(name: str) -> str:
    # A name may contain anything that a string can contain, even a lone surrogate.
    return quote(name, safe="", errors="surrogatepass")


def _unquoted(name: str) -> str:
    return unquote(name, errors="surrogatepass")


def _named_record(line: str) -> tuple[str, Record]:
    name, _, stored = line.partition(" ")
    return _unquoted(name), _record(stored)


def _record(stored: str) -> Record:
    if not stored:
        return Record()
    version, _, body = stored.partition(" ")
    try:
        return record_from_json(int(version), body)
    except ValueError as error:
        raise StoreError(_text(error)) from error


def _notice(data: str) -> Notice | None:
    """Parse a message. None means that it is not one of ours, so that all records are read."""
    try:
        now, name, stored = data.split(" ", 2)
        return Notice(_unquoted(name), _record(stored), int(now))
    except (ValueError, StoreError):
        return None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
