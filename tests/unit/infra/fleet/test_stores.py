"""The contract of every store, tested with a directory and a real Valkey."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from example_service.infra.fleet.directory_store import FILE, DirectoryStore
from example_service.infra.fleet.record import Lease, Order, Record
from example_service.infra.fleet.redis_store import RedisStore
from example_service.infra.fleet.store import Change, Notice, Store, StoreError
from tests.tcp_proxy import TCPProxy
from tests.valkey import ValkeyServer, running_valkey

ROOT = Path(__file__).parents[4]
OPEN = Record(
    is_open=True,
    opened_at=5,
    until=70,
    opener="p1",
    reason="5 failures in a row",
    leases={"a": Lease("p1", 99)},
    votes={"p2": 7},
    order=Order("o", "shadow", "trying “it” out", None),
)


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    """A server that all tests of this module share."""
    with running_valkey() as server:
        yield server


@pytest.fixture(params=["directory", pytest.param("redis", marks=pytest.mark.integration)])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Store, Store]]:
    """The same store, as two processes use it."""
    two: tuple[Store, Store]
    if request.param == "directory":
        two = DirectoryStore(tmp_path), DirectoryStore(tmp_path)
    else:
        url = request.getfixturevalue("valkey").url
        prefix = f"test {tmp_path.name}"
        two = (
            RedisStore(url, prefix=prefix, timeout_seconds=20.0),
            RedisStore(url, prefix=prefix, timeout_seconds=20.0),
        )
    for store in two:
        await store.connect()
        await store.beat("first", 0)
    yield two
    for store in two:
        await store.close("first")


def change(name: str, expected: int, record: Record = OPEN, kept: int = 60_000) -> Change:
    """A change that writes one record."""
    return Change(name, expected, record, kept)


async def test_a_record_is_read_as_it_was_written(stores: tuple[Store, Store]) -> None:
    """Another process reads it, under any name and with the version assigned by the store."""
    names = ["payment", "{x}:y z", "名\n前", "%41", "a" * 200, "\ud800"]
    written = await stores[0].write([change(name, 0) for name in names], 0)
    snapshot = await stores[1].read()
    assert written.accepted == set(names)
    assert snapshot.records == written.current
    assert [record.with_version(0) for record in snapshot.records.values()] == [OPEN] * len(names)


async def test_versions_grow_with_every_write(stores: tuple[Store, Store]) -> None:
    """They grow across circuits and processes, and beyond any version that a member knows."""
    first = await stores[0].write([change("a", 0), change("b", 0)], 0)
    second = await stores[1].write([change("a", first.current["a"].version)], 1000)
    versions = [first.current["a"], first.current["b"], second.current["a"]]
    assert versions[0].version < versions[1].version < versions[2].version
    assert versions[2].version > 1000
    assert (await stores[0].read()).counter == versions[2].version


async def test_a_write_based_on_an_outdated_version_changes_nothing(
    stores: tuple[Store, Store],
) -> None:
    """The reply contains the current record."""
    first = await stores[0].write([change("a", 0)], 0)
    late = await stores[1].write([change("a", 0, Record(reason="late")), change("b", 0)], 0)
    assert late.accepted == {"b"}
    assert late.current["a"] == first.current["a"]
    assert (await stores[0].read()).records["a"] == first.current["a"]


async def test_concurrent_writers_overwrite_no_change(
    stores: tuple[Store, Store],
) -> None:
    """No increment is lost when all of them read, increase and write the same number."""

    async def increase(store: Store) -> None:
        for _ in range(10):
            current = (await store.read()).records.get("a", Record())
            while True:
                next_record = Record(successes=current.successes + 1)
                written = await store.write([change("a", current.version, next_record)], 0)
                if written.accepted:
                    break
                current = written.current["a"]

    await asyncio.gather(*(increase(store) for store in stores))
    assert (await stores[0].read()).records["a"].successes == 20


async def test_a_record_expires(stores: tuple[Store, Store]) -> None:
    """A record is gone once its time has passed."""
    await stores[0].write([change("short", 0, kept=30), change("long", 0)], 0)
    await asyncio.sleep(0.06)
    assert list((await stores[1].read()).records) == ["long"]
    again = await stores[1].write([change("short", 0)], 0)
    assert again.accepted == {"short"}


async def test_the_clock_moves_forward(stores: tuple[Store, Store]) -> None:
    """Every reply contains the time in milliseconds."""
    before = (await stores[0].read()).now
    await asyncio.sleep(0.02)
    after = (await stores[1].beat("second", 0)).now
    assert 15 <= after - before < 60_000


async def test_members_are_counted(stores: tuple[Store, Store]) -> None:
    """Members count if they have sent a beat within the last seconds and have not left."""
    assert (await stores[1].beat("second", 0)).members == 2
    await stores[1].close("second")
    assert (await stores[0].beat("first", 0)).members == 1


async def test_the_counter_never_falls_below_what_a_member_knows(
    stores: tuple[Store, Store],
) -> None:
    """The reply has the old value, so the member notices that the store has lost data."""
    assert (await stores[0].beat("first", 500)).counter == 0
    assert (await stores[1].beat("second", 0)).counter == 500
    written = await stores[1].write([change("a", 0)], 0)
    assert written.current["a"].version == 501


async def test_writes_are_announced(stores: tuple[Store, Store]) -> None:
    """The notice has the record or None, and no write after the first item is missed."""
    changes = stores[1].changes()
    assert await anext(changes) is None
    written = await stores[0].write([change("pay ment", 0)], 0)
    notice = await asyncio.wait_for(anext(changes), 60.0)
    if notice is not None:
        assert notice == Notice("pay ment", written.current["pay ment"], written.now)
    await changes.aclose()  # type: ignore[attr-defined]


def _delete(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


async def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """Every operation fails until the next process connects, which creates the directory."""
    directory = tmp_path / "shared"
    store = DirectoryStore(directory)
    await store.connect()
    changes = store.changes()
    await anext(changes)
    _delete(directory)
    for operation in (
        store.beat("first", 0),
        store.read(),
        store.write([change("a", 0)], 0),
        anext(changes),
    ):
        with pytest.raises(StoreError, match="No such file"):
            await operation
    await store.connect()
    assert (await store.read()).records == {}


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\x00\xfe",
        b'["e", 1, 1]',
        b'["e", 1, 0]\n"a"\t1\t9\t{}',
        b'["e", 1, 1]\n"a"\t1\t9\t{"reason',
        b'["e", 1, 1]\n"a"\t1\t9\t{"leases":[1]}',
        b'["e", 1, 1]\n"a"\t1\tsoon\t{}',
    ],
)
async def test_a_damaged_file_is_an_error_until_it_is_replaced(
    tmp_path: Path, contents: bytes
) -> None:
    """The next process that connects replaces it, and starts a new epoch."""
    store = DirectoryStore(tmp_path)
    await store.connect()
    epoch = (await store.read()).epoch
    (tmp_path / FILE).write_bytes(contents)
    with pytest.raises(StoreError, match="is damaged"):
        await store.read()
    with pytest.raises(StoreError, match="is damaged"):
        await store.write([change("a", 0)], 0)
    await store.connect()
    snapshot = await store.read()
    assert snapshot.records == {}
    assert snapshot.epoch != epoch


async def test_a_process_that_hangs_with_the_lock_does_not_block_others(tmp_path: Path) -> None:
    """A write of another process fails after a third of a second."""
    import fcntl  # noqa: PLC0415 - Not on Windows.

    store = DirectoryStore(tmp_path)
    await store.connect()
    with (tmp_path / f"{FILE}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="does not release the lock"):
            await store.write([change("a", 0)], 0)
    assert (await store.write([change("a", 0)], 0)).accepted


async def test_a_full_disk_is_noticed_at_a_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat writes, because reading still works."""
    store = DirectoryStore(tmp_path)
    await store.connect()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(f"{DirectoryStore.__module__}.replace_file", full)
    with pytest.raises(StoreError, match="No space left"):
        await store.beat("first", 0)


@pytest.fixture
async def own_valkey() -> AsyncIterator[ValkeyServer]:
    """A server that the test may kill or suspend."""
    with running_valkey() as server:
        yield server


@pytest.fixture
async def store(own_valkey: ValkeyServer) -> AsyncIterator[RedisStore]:
    """A store on this server, with a timeout of a second."""
    store = RedisStore(own_valkey.url, prefix="test", timeout_seconds=1.0)
    await store.connect()
    await store.beat("first", 0)
    yield store
    await store.close("first")


async def fails(store: RedisStore, match: str) -> None:
    """Expect a beat to fail without waiting for the server."""
    async with asyncio.timeout(60.0):
        with pytest.raises(StoreError, match=match):
            await store.beat("first", 0)


@pytest.mark.integration
async def test_a_server_that_dies_is_an_error_until_it_is_back(
    own_valkey: ValkeyServer, store: RedisStore
) -> None:
    """It comes back empty, with a new epoch."""
    epoch = (await store.read()).epoch
    own_valkey.kill()
    await fails(store, "Connect")
    own_valkey.start()
    await store.connect()
    assert (await store.beat("first", 7)).epoch != epoch
    assert (await store.read()).counter == 7


@pytest.mark.integration
async def test_a_server_that_hangs_is_an_error_within_the_timeout(
    own_valkey: ValkeyServer, store: RedisStore
) -> None:
    """The store works again once the server does."""
    own_valkey.suspend()
    await fails(store, "Timeout")
    own_valkey.resume()
    await store.connect()
    await store.beat("first", 0)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("requests", "replies"), [(True, True), (True, False), (False, True)], ids=str
)
async def test_a_broken_network_is_an_error_within_the_timeout(
    own_valkey: ValkeyServer, requests: bool, replies: bool
) -> None:
    """One or both directions may break; a write that arrives late or twice changes nothing."""
    there = RedisStore(own_valkey.url, prefix="test", timeout_seconds=20.0)
    async with TCPProxy(own_valkey.port).listening() as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        store = RedisStore(url, prefix="test", timeout_seconds=1.0)
        await store.beat("first", 0)
        proxy.fall_silent(requests=requests, replies=replies)
        await fails_to_write(store)
        written = await there.write([change("a", 0, Record(reason="of the other"))], 0)
        assert ("a" in written.accepted) is requests
        proxy.speak()
        await store.connect()
        assert (await store.write([change("a", 0)], 0)).accepted == set()
        assert (await store.read()).records == written.current
        await store.close("first")
    await there.close("first")


async def fails_to_write(store: RedisStore) -> None:
    """Expect a write to fail soon."""
    async with asyncio.timeout(60.0):
        with pytest.raises(StoreError, match="Timeout"):
            await store.write([change("a", 0)], 0)


@pytest.mark.integration
async def test_a_listening_connection_that_falls_silent_is_an_error(
    own_valkey: ValkeyServer, store: RedisStore
) -> None:
    """A ping without a reply reveals it."""
    changes = store.changes()
    assert await anext(changes) is None
    own_valkey.suspend()
    with pytest.raises(StoreError):
        await asyncio.wait_for(anext(changes), 60.0)
    own_valkey.resume()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("setting", "value", "match"),
    [
        ("replicaof", "127.0.0.1 1", "read only replica|ReadOnly"),
        ("maxmemory", "1", "OOM|OutOfMemory"),
        ("requirepass", "secret", "Authentication|NOAUTH"),
    ],
)
async def test_a_server_that_refuses_writes_is_noticed_at_a_beat(
    own_valkey: ValkeyServer, setting: str, value: str, match: str
) -> None:
    """It may be a replica, be out of memory, or require a password."""
    own_valkey.kill()
    own_valkey.start(f"--{setting}", *value.split())
    store = RedisStore(own_valkey.url, prefix="test", timeout_seconds=20.0)
    await store.connect()
    await fails(store, match)
    await store.close("first")


@pytest.mark.integration
async def test_every_key_has_the_prefix_and_expires(store: RedisStore) -> None:
    """Services can share a server, and no data stays behind."""
    await store.write([change("a:b", 0)], 0)
    client = store._client
    keys = [str(key) for key in await client.keys("*")]
    assert {key for key in keys if not key.startswith("{test}:")} == set()
    expiries = {key: await client.pttl(key) for key in keys}
    assert {key for key, left in expiries.items() if left < 0} == set()


@pytest.mark.integration
@pytest.mark.parametrize("message", ["", "1 2", "soon name 1 {}", "1 name 9 {", b"\xff\xfe"])
async def test_a_foreign_message_on_the_channel_causes_a_read(
    store: RedisStore, message: str | bytes
) -> None:
    """It is no reason to be disconnected."""
    changes = store.changes()
    assert await anext(changes) is None
    await store._client.publish("{test}:changes:0", message)
    assert await asyncio.wait_for(anext(changes), 60.0) is None
    await changes.aclose()  # type: ignore[attr-defined]


@pytest.mark.integration
async def test_a_list_of_records_that_was_evicted_is_repaired(store: RedisStore) -> None:
    """A member that misses a record in it writes the record, and gets the one that is there."""
    written = await store.write([change("a", 0)], 0)
    await store._client.delete("{test}:circuits")
    assert (await store.read()).records == {}
    again = await store.write([change("a", 0)], 0)
    assert not again.accepted
    assert again.current == written.current
    assert (await store.read()).records == written.current


@pytest.mark.integration
async def test_services_in_two_databases_of_a_server_do_not_hear_each_other(
    own_valkey: ValkeyServer, store: RedisStore
) -> None:
    """The databases of a server share their channels, even with the same prefix."""
    url = own_valkey.url.removesuffix("/0")
    elsewhere = RedisStore(f"{url}/1", prefix="test", timeout_seconds=1.0)
    changes = store.changes()
    assert await anext(changes) is None
    await elsewhere.write([change("a", 0)], 0)
    written = await store.write([change("b", 0)], 0)
    notice = await asyncio.wait_for(anext(changes), 60.0)
    assert notice == Notice("b", written.current["b"], written.now)
    await changes.aclose()  # type: ignore[attr-defined]
    await elsewhere.close("first")


@pytest.mark.integration
async def test_one_process_has_two_connections(own_valkey: ValkeyServer, store: RedisStore) -> None:
    """One is for commands and one for listening, however many writes are concurrent."""
    changes = store.changes()
    await anext(changes)
    await asyncio.gather(*(store.write([change(f"{number}", 0)], 0) for number in range(30)))
    other = RedisStore(own_valkey.url, prefix="other", timeout_seconds=1.0)
    clients = await other._client.client_list()
    assert len(clients) == 3
    await other.close("first")
    with contextlib.suppress(StoreError):
        await changes.aclose()  # type: ignore[attr-defined]


def test_the_address_has_no_password() -> None:
    """The address appears in the log."""
    store = RedisStore("rediss://user:secret@cache:6380/2", prefix="x", timeout_seconds=1.0)
    assert store.address == "rediss://cache:6380/2"


def test_the_wheel_has_the_scripts() -> None:
    """The scripts are not Python files, but an installed package needs them."""
    wheel = WheelBuilder(str(ROOT))
    packed = {Path(file.distribution_path).name for file in wheel.recurse_included_files()}
    assert {"beat.lua", "read.lua", "write.lua"} <= packed


def test_the_image_contains_the_client() -> None:
    """The image's lock file includes the extra."""
    assert "\nredis==" in (ROOT / "requirements.lock").read_text()
