"""A process as a member of the fleet: its start, threads, limits and faults of its store."""

# ruff: noqa: ARG002 - A fake takes the same arguments as the part that it replaces.

import asyncio
import errno
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from example_service.infra.fleet import gates
from example_service.infra.fleet import member as member_module
from example_service.infra.fleet.commands import SetMode, Vote
from example_service.infra.fleet.directory_store import FILE, DirectoryStore
from example_service.infra.fleet.gates import MAX_CIRCUITS
from example_service.infra.fleet.member import FIRST_READ_SECONDS, Member
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.fleet.record import Record
from example_service.infra.fleet.store import Beat, Change, StoreError, Written
from example_service.infra.metrics.fleet import FleetMetrics
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from tests.shared_directories import delete, replace_by_file
from tests.unit.infra.fleet.joined_fleet import fail, joined_fleet, until
from tests.unit.infra.fleet.simulated_store import Server, SimulatedStore, now
from tests.virtual_loop import run_virtually

NAME = "payment"
LOST = "cannot use the shared directory"
BACK = "can use the shared directory"
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


async def write(directory: Path, seconds: float | None) -> None:
    """Write as another process that forces the circuit open, or opens it for some seconds."""
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
    """The mode is in effect before the first request, even if the store is read-only."""
    await write(tmp_path, None)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with joined_fleet(kind(tmp_path), registry):
        with pytest.raises(CircuitOpenError) as refused:
            await breaker.call(asyncio.sleep, 0)
    assert refused.value.reason == "forced open by hand: maintenance"


async def test_a_mode_of_a_later_version_is_ignored(
    tmp_path: Path, registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """During an upgrade, the process still shares its circuits."""
    store = DirectoryStore(tmp_path)
    await store.connect()
    record = replace(MAINTENANCE, mode="throttled", opens=False).apply(Record(), 0)
    assert record is not None
    await store.write([Change(NAME, 0, record, 60_000)], 0)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with joined_fleet(store, registry) as member:
        assert member.is_connected
        assert breaker.is_closed
    assert "does not know the mode 'throttled'" in caplog.text


@pytest.mark.parametrize("kind", [DirectoryStore, ReadOnlyStore])
async def test_a_process_starts_open_while_the_others_are_open(
    tmp_path: Path, registry: CircuitBreakerRegistry, kind: type[DirectoryStore]
) -> None:
    """It waits for the rest of their wait."""
    await write(tmp_path, 600.0)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with joined_fleet(kind(tmp_path), registry):
        with pytest.raises(CircuitOpenError) as refused:
            await breaker.call(asyncio.sleep, 0)
    assert refused.value.reason == "5 failures (opened by other)"
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 600.0


async def test_a_breaker_that_is_created_later_starts_open(
    tmp_path: Path, registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a breaker that is created for each request would never follow the fleet."""
    await write(tmp_path, 600.0)
    async with joined_fleet(DirectoryStore(tmp_path), registry) as member:
        before = member.version
        caplog.clear()
        for _ in range(3):
            with pytest.raises(CircuitOpenError) as refused:
                await CircuitBreaker(NAME, registry=registry).call(asyncio.sleep, 0)
            assert refused.value.reason == "5 failures (opened by other)"
        assert member.version == before
        # The process only followed the fleet, so it logs nothing and does not vote.
        assert [line for line in caplog.messages if "opened" in line] == []


async def test_a_process_starts_closed_after_the_wait_of_the_others(
    tmp_path: Path, registry: CircuitBreakerRegistry
) -> None:
    """An expired vote does not open a closed circuit."""
    await write(tmp_path, 0.02)
    await asyncio.sleep(0.03)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with joined_fleet(DirectoryStore(tmp_path), registry):
        assert await breaker.call(asyncio.sleep, 0, "answer") == "answer"


@pytest.mark.parametrize(
    ("store", "limit"), [(SimulatedStore, 0.5), (HangingStore, FIRST_READ_SECONDS)]
)
def test_a_process_starts_without_the_store(
    registry: CircuitBreakerRegistry,
    store: type[SimulatedStore],
    limit: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It starts after the first error of the store, or after a limited time without any reply.

    When the metric first shows the fault, the log has a line about it.
    """

    async def scenario() -> None:
        server = Server(random.Random(0))  # noqa: S311
        server.faults.hangs = True
        async with joined_fleet(store(server), registry) as member:
            assert round(now(), 6) <= limit
            assert not member.is_connected
            assert caplog.messages == ["The store fails: no reply in time"]

    run_virtually(scenario())


@pytest.fixture
def fast_thread_switches() -> Iterator[None]:
    """Make the interpreter switch between threads as often as possible."""
    seconds = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(seconds)


@pytest.mark.usefixtures("fast_thread_switches")
async def test_breakers_open_in_threads_while_the_fleet_comes_and_goes(
    tmp_path: Path, registry: CircuitBreakerRegistry
) -> None:
    """Any thread may open the first breaker of a name at any time."""
    is_over = threading.Event()
    member = Member(ReadOnlyStore(tmp_path), ProcessBreakers(registry))

    def open_breakers() -> None:
        for number in range(MAX_CIRCUITS):
            member.opened(f"{number}", 5.0, "5 failures", 0)
            if is_over.is_set():
                return

    thread = threading.Thread(target=open_breakers)
    thread.start()
    try:
        for _ in range(150):
            async with member.running():
                pass
    finally:
        is_over.set()
        thread.join()


async def test_a_flood_of_names_is_capped(
    tmp_path: Path,
    registry: CircuitBreakerRegistry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Circuits above the limit are not shared, and one warning says so."""
    monkeypatch.setattr(gates, "MAX_CIRCUITS", 3)
    store = DirectoryStore(tmp_path)
    async with joined_fleet(store, registry) as member:
        breakers = [
            CircuitBreaker(f"user-{number}", recovery_timeout=seconds, registry=registry)
            for number, seconds in enumerate([60.0] * 5 + [0.01])
        ]
        for breaker in breakers:
            fail(breaker)
        await until(lambda: len(member.records()) == 3)
        assert len((await store.read()).records) == 3
        await asyncio.sleep(0.02)
        # A circuit that is not shared needs no lease for its probe.
        assert breakers[-1].call_sync(str) == ""
        assert [line for line in caplog.messages if "More than 3 circuits" in line] != []
    assert sum("More than 3 circuits" in line for line in caplog.messages) == 1


async def test_an_order_for_a_circuit_above_the_limit_applies_everywhere(
    tmp_path: Path, registry: CircuitBreakerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for circuits that open by themselves."""
    for module in (gates, member_module):
        monkeypatch.setattr(module, "MAX_CIRCUITS", 1)
    breaker = CircuitBreaker(NAME, registry=registry)
    async with (
        joined_fleet(DirectoryStore(tmp_path), registry) as member,
        joined_fleet(DirectoryStore(tmp_path), CircuitBreakerRegistry()) as other,
    ):
        fail(CircuitBreaker("other", recovery_timeout=60.0, registry=registry))
        await until(lambda: member.records() and other.records())
        await other.order(NAME, "forced_open", "maintenance", None, opens=True)
        await until(lambda: breaker.is_open)
        await other.order(NAME, None, "done", None, opens=False)
        await until(lambda: breaker.is_closed)


async def test_a_change_of_one_circuit_does_not_wait_for_hundreds_of_others(
    tmp_path: Path, registry: CircuitBreakerRegistry
) -> None:
    """A command is written at once, even if all circuits have just been read."""
    names = [f"host-{number}" for number in range(250)]
    store = DirectoryStore(tmp_path)
    await store.connect()
    opened = Vote("other", 1, (await store.read()).now + 60_000, "5 failures", 0, 60_000, 1)
    record = opened.apply(Record(), 0)
    assert record is not None
    await store.write([Change(name, 0, record, 60_000) for name in names], 0)
    async with joined_fleet(store, registry) as member:
        for name in names[::-1][:5]:
            assert await member.order(name, None, "by hand", None, opens=False)


def _replace_by_file(directory: Path, _: pytest.MonkeyPatch) -> None:
    replace_by_file(directory)


def _let_others_write(directory: Path, _: pytest.MonkeyPatch) -> None:
    directory.chmod(0o777)
    # The permissions are checked when the next connection begins.
    (directory / FILE).unlink()


def _write_half(directory: Path, _: pytest.MonkeyPatch) -> None:
    text = (directory / FILE).read_text()
    (directory / FILE).write_text(text[: len(text) // 2])
    # Without the lock, no process can replace the file.
    (directory / f"{FILE}.lock").unlink(missing_ok=True)
    (directory / f"{FILE}.lock").mkdir()


def _fail_to_write(number: int) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def fault(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(f"{DirectoryStore.__module__}.replace_file", refuse)

    return fault


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (_replace_by_file, "Not a directory"),
        (_let_others_write, "No such file"),
        (_write_half, "is damaged"),
        (_fail_to_write(errno.ENOSPC), "No space left"),
        (_fail_to_write(errno.EROFS), "Read-only file system"),
        (_fail_to_write(errno.EIO), "Input/output error"),
    ],
    ids=["replaced by a file", "others may write", "half-written", "full", "read-only", "broken"],
)
async def test_without_its_directory_a_process_works_on_its_own(
    tmp_path: Path,
    registry: CircuitBreakerRegistry,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    error: str,
) -> None:
    """One line logs the loss and one the return, the metric shows it, and no call fails."""
    directory = tmp_path / "shared"
    directory.mkdir()
    metrics = FleetMetrics()
    breaker = CircuitBreaker(NAME, recovery_timeout=0.01, success_threshold=1, registry=registry)
    async with joined_fleet(DirectoryStore(directory), registry) as member:
        metrics.watch(member)
        with pytest.MonkeyPatch.context() as patch:
            fault(directory, patch)
            await until(lambda: not member.is_connected)
            assert connected(metrics) == 0.0
            fail(breaker)
            await asyncio.sleep(0.02)
            assert breaker.call_sync(str) == ""
            assert breaker.is_closed
            # This is enough time for several attempts to reconnect.
            await asyncio.sleep(0.6)
        if directory.is_file():
            directory.unlink()
        shutil.rmtree(directory, ignore_errors=True)
        await until(lambda: member.is_connected)
        assert connected(metrics) == 1.0
    lost = [line for line in caplog.messages if LOST in line]
    assert len(lost) == 1
    assert error in lost[0]
    assert sum(BACK in line for line in caplog.messages) == 1


async def test_a_deleted_directory_is_created_again(
    tmp_path: Path, registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Only its owner may write to it, and what is known returns to it."""
    directory = tmp_path / "shared"
    async with joined_fleet(DirectoryStore(directory), registry) as member:
        fail(CircuitBreaker(NAME, registry=registry))
        await until(lambda: NAME in member.records())
        delete(directory)
        await until(lambda: BACK in caplog.text)
        await until(lambda: NAME in (directory / FILE).read_text())
        assert directory.stat().st_mode & 0o777 == 0o700
    assert caplog.text.count(LOST) == caplog.text.count(BACK) == 1


def connected(metrics: FleetMetrics) -> float:
    """The value of the metric."""
    (family,) = [
        family for family in metrics.collect() if family.name == "circuit_breaker_fleet_connected"
    ]
    return float(family.samples[0].value)
