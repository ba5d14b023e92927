"""How a process starts as a member of the fleet."""

# ruff: noqa: ARG002 - What stands in for a part takes the arguments of the part.

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from example_service.infra.fleet.commands import SetMode, Vote
from example_service.infra.fleet.directory_store import DirectoryStore
from example_service.infra.fleet.member import FIRST_READ_SECONDS, Member
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.fleet.record import Record
from example_service.infra.fleet.store import Beat, Change, Store, StoreError, Written
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from tests.unit.infra.fleet.simulation import Server, SimulatedStore, now
from tests.unit.infra.fleet.virtual_loop import run_virtually

NAME = "payment"
MAINTENANCE = SetMode("order", "forced_open", "maintenance", None, opens=True, member="other")


class ReadOnlyStore(DirectoryStore):
    """A directory that this process can only read."""

    async def beat(self, member: str, known: int) -> Beat:
        """See `Store`."""
        raise StoreError("Read-only file system")

    async def write(self, changes: Sequence[Change], known: int) -> Written:
        """See `Store`."""
        raise StoreError("Read-only file system")


class HangingStore(SimulatedStore):
    """A store that neither replies nor fails."""

    async def connect(self) -> None:
        """See `Store`."""
        await asyncio.Event().wait()


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """The breakers of this process."""
    return CircuitBreakerRegistry()


@asynccontextmanager
async def taking_part(store: Store, registry: CircuitBreakerRegistry) -> AsyncIterator[Member]:
    """Have the breakers take part until the end of the block."""
    breakers = ProcessBreakers(registry)
    member = Member(store, breakers)
    with breakers.reporting_to(member):
        async with member.running():
            yield member


async def write(directory: Path, seconds: float | None) -> None:
    """Have another process order maintenance, or open the circuit for some seconds."""
    store = DirectoryStore(directory)
    await store.connect()
    at = (await store.read()).now
    if seconds is None:
        record = MAINTENANCE.apply(Record(), at)
    else:
        until = at + round(1000 * seconds)
        record = Vote("other", at, until, "5 failures", 2, 60_000, 1).apply(Record(), at)
    assert record is not None
    await store.write([Change(NAME, 0, record, 60_000)], 0)


@pytest.mark.parametrize("kind", [DirectoryStore, ReadOnlyStore])
async def test_a_process_starts_in_the_mode_that_is_set(
    tmp_path: Path, registry: CircuitBreakerRegistry, kind: type[DirectoryStore]
) -> None:
    """Before its first request, even if it can only read the store."""
    await write(tmp_path, None)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with taking_part(kind(tmp_path), registry):
        with pytest.raises(CircuitOpenError) as refused:
            await breaker.call(asyncio.sleep, 0)
    assert refused.value.reason == "forced open by hand: maintenance"


@pytest.mark.parametrize("kind", [DirectoryStore, ReadOnlyStore])
async def test_a_process_starts_open_while_the_others_are_open(
    tmp_path: Path, registry: CircuitBreakerRegistry, kind: type[DirectoryStore]
) -> None:
    """For what is left of their wait."""
    await write(tmp_path, 7.0)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with taking_part(kind(tmp_path), registry):
        with pytest.raises(CircuitOpenError) as refused:
            await breaker.call(asyncio.sleep, 0)
    assert refused.value.reason == "5 failures (opened by other)"
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 7.0


async def test_a_breaker_that_is_created_later_starts_open(
    tmp_path: Path, registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """As the others of its name are; a client for each request would otherwise never follow."""
    await write(tmp_path, 7.0)
    async with taking_part(DirectoryStore(tmp_path), registry) as member:
        before = member.version
        caplog.clear()
        for _ in range(3):
            with pytest.raises(CircuitOpenError) as refused:
                await CircuitBreaker(NAME, registry=registry).call(asyncio.sleep, 0)
            assert refused.value.reason == "5 failures (opened by other)"
        assert member.version == before
        # What it has followed is no news, and it is no vote of this process.
        assert [line for line in caplog.messages if "opened" in line] == []


async def test_a_process_starts_closed_after_the_wait_of_the_others(
    tmp_path: Path, registry: CircuitBreakerRegistry
) -> None:
    """An expired verdict opens no closed circuit."""
    await write(tmp_path, 0.02)
    await asyncio.sleep(0.03)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with taking_part(DirectoryStore(tmp_path), registry):
        assert await breaker.call(asyncio.sleep, 0, "answer") == "answer"


@pytest.mark.parametrize(
    ("store", "limit"), [(SimulatedStore, 0.5), (HangingStore, FIRST_READ_SECONDS)]
)
def test_a_process_starts_without_the_store(
    registry: CircuitBreakerRegistry, store: type[SimulatedStore], limit: float
) -> None:
    """At its first error, and in bounded time if there is not even one."""

    async def scene() -> None:
        server = Server(random.Random(0))  # noqa: S311
        server.faults.hangs = True
        async with taking_part(store(server), registry) as member:
            assert now() <= limit
            assert not member.is_connected

    run_virtually(scene())
