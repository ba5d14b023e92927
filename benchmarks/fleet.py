"""Several processes as one circuit: the cost of a call, and how fast the others follow.

The members of a fleet run in this process, each with its own breakers, over a real Valkey or a
directory. Whole services are measured as well, through HTTP.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import redis.asyncio

from benchmarks.fleet_services import seconds_to_follow
from benchmarks.rounds import Plan, interleave, quartiles, uncollected
from benchmarks.tables import Table, Target, Verdict, exactly, with_quartiles
from example_service.infra.fleet.directory_store import DirectoryStore
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.fleet.redis_store import RedisStore
from example_service.infra.fleet.store import Store
from example_service.infra.resilience import CircuitBreaker, CircuitBreakerRegistry
from tests.unit.infra.fleet.simulation import NAME
from tests.valkey import ValkeyServer, running_valkey

MEMBERS = 4
CIRCUITS = 10_000
OPENINGS = 60
IDLE_SECONDS = 5.0
HANG_SECONDS = 2.0
RIVAL_CALLS = 300

ALONE = "example_service, alone"
SHARED = "example_service, in a fleet"

Call = Callable[[], Awaitable[object]]


async def run(plan: Plan, *, quick: bool) -> AsyncIterator[Table]:
    """Yield tables for calls, for verdicts and for many circuits as soon as they are ready.

    Args:
        plan: How much to time.
        quick: Only check that everything runs.
    """
    with running_valkey() as valkey:
        yield await _calls(valkey, plan, HANG_SECONDS / 10 if quick else HANG_SECONDS)
        yield await _verdicts(valkey, quick=quick)
        yield await _flood(valkey, 100 if quick else CIRCUITS)


@asynccontextmanager
async def _member(store: Store) -> AsyncIterator[tuple[Member, CircuitBreakerRegistry]]:
    registry = CircuitBreakerRegistry()
    breakers = ProcessBreakers(registry)
    member = Member(store, breakers)
    with breakers.reporting_to(member):
        async with member.running():
            yield member, registry


def _store(valkey: ValkeyServer, prefix: str = "bench", timeout_seconds: float = 0.4) -> RedisStore:
    return RedisStore(valkey.url, prefix=prefix, timeout_seconds=timeout_seconds)


async def _answer() -> int:
    return 42


async def _calls(valkey: ValkeyServer, plan: Plan, hang_seconds: float) -> Table:
    """A closed call without a fleet, in a fleet, and while its store hangs; then rivals."""
    table = Table("A closed call whose circuit is shared", ["", "µs", "longest 1 %, µs"])
    async with _member(_store(valkey)) as (member, registry):
        entrants: dict[str, Call] = {
            ALONE: CircuitBreaker("alone", registry=None)(_answer),
            SHARED: CircuitBreaker("shared", registry=registry)(_answer),
        }
        samples = await interleave({name: _slice(call) for name, call in entrants.items()}, plan)
        for name, call in entrants.items():
            _row(table, name, await _seconds(call, RIVAL_CALLS))
        valkey.suspend()
        end, hung = time.monotonic() + hang_seconds, list[float]()
        while time.monotonic() < end or member.is_connected:
            hung += await _seconds(entrants[SHARED], RIVAL_CALLS)
            await asyncio.sleep(0)
        valkey.resume()
        _row(table, f"{SHARED}, its store hangs", hung)
    for name, make in _RIVALS.items():
        async with AsyncExitStack() as stack:
            try:
                call = await make(valkey, stack)
            except ImportError:
                continue
            _row(table, name, await _seconds(call, RIVAL_CALLS))
    ratio = samples.ratio(SHARED, ALONE)
    table.verdicts.append(Verdict(f"{SHARED}, in the time of one alone", ratio, Target(1.02)))
    table.note = (
        f"In a fleet a call takes {with_quartiles(ratio, 3)} times as long as without, measured in "
        "turns. Rivals ask their Redis in each call, over loopback, except interlock-cb: it asks "
        "once a second for each breaker."
    )
    return table


def _slice(call: Call) -> Callable[[int], Awaitable[None]]:
    async def run_slice(count: int) -> None:
        for _ in range(count):
            await call()

    return run_slice


async def _seconds(call: Call, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - began)
    return taken


def _row(table: Table, name: str, seconds: list[float]) -> None:
    median, longest = _at(seconds, 0.5) * 1e6, _at(seconds, 0.99) * 1e6
    table.rows.append([name, f"{median:,.1f}", f"{longest:,.1f}"])
    table.figures[name] = {"µs": exactly(median), "longest 1 %, µs": exactly(longest)}


def _at(figures: list[float], share: float) -> float:
    return sorted(figures)[min(len(figures) - 1, int(share * len(figures)))]


async def _interlock_cb(valkey: ValkeyServer, stack: AsyncExitStack) -> Call:
    library = import_module("interlock")
    module = import_module("interlock.integrations.redis")
    client = await stack.enter_async_context(redis.asyncio.Redis.from_url(valkey.url))
    breaker = library.CircuitBreaker(name="bench", storage=module.AsyncRedisStorage(client))
    stack.push_async_callback(breaker.aclose)
    return lambda: breaker.call(_answer)


async def _purgatory(valkey: ValkeyServer, _: AsyncExitStack) -> Call:
    purgatory = import_module("purgatory")
    work = purgatory.AsyncRedisUnitOfWork(valkey.url)
    factory = purgatory.AsyncCircuitBreakerFactory(uow=work)
    await factory.initialize()

    async def call() -> None:
        async with await factory.get_breaker("bench"):
            await _answer()

    return call


async def _pybreaker(valkey: ValkeyServer, _: AsyncExitStack) -> Call:
    pybreaker = import_module("pybreaker")
    storage = pybreaker.CircuitRedisStorage("closed", redis.Redis.from_url(valkey.url))
    breaker = pybreaker.CircuitBreaker(state_storage=storage)

    async def call() -> None:
        breaker.call(int)

    return call


async def _aiobreaker(valkey: ValkeyServer, _: AsyncExitStack) -> Call:
    aiobreaker = import_module("aiobreaker")
    module = import_module("aiobreaker.storage.redis")
    storage = module.CircuitRedisStorage(
        aiobreaker.CircuitBreakerState.CLOSED, redis.StrictRedis.from_url(valkey.url)
    )
    breaker = aiobreaker.CircuitBreaker(
        state_storage=storage, timeout_duration=timedelta(seconds=60)
    )

    async def call() -> None:
        await breaker.call_async(_answer)

    return call


_RIVALS: dict[str, Callable[[ValkeyServer, AsyncExitStack], Awaitable[Call]]] = {
    "interlock-cb, Redis": _interlock_cb,
    "purgatory, Redis": _purgatory,
    "pybreaker, Redis": _pybreaker,
    "aiobreaker, Redis": _aiobreaker,
}


async def _verdicts(valkey: ValkeyServer, *, quick: bool) -> Table:
    """How fast the others follow, and the traffic of a verdict and of an idle second."""
    openings = 3 if quick else OPENINGS
    table = Table(f"One of {MEMBERS} processes opens", ["", "median", "longest 1 %"])
    client = redis.Redis.from_url(valkey.url)
    async with _fleet([_store(valkey, "verdicts") for _ in range(MEMBERS)]) as fleet:
        before = _sent(client)
        await asyncio.sleep(0.2 if quick else IDLE_SECONDS)
        idle = [
            (after - was) / MEMBERS / (0.2 if quick else IDLE_SECONDS)
            for was, after in zip(before, _sent(client), strict=True)
        ]
        before = _sent(client)
        began = time.monotonic()
        over_valkey = await _follow(fleet, openings)
        passed = (time.monotonic() - began) * MEMBERS
        spent = [
            (after - was - rest * passed) / openings
            for was, after, rest in zip(before, _sent(client), idle, strict=True)
        ]
    with tempfile.TemporaryDirectory() as folder:
        stores = [DirectoryStore(Path(folder)) for _ in range(MEMBERS)]
        async with _fleet(stores) as fleet:
            over_directory = await _follow(fleet, openings)
    over_http = await asyncio.to_thread(
        seconds_to_follow, valkey.url, 2 if quick else MEMBERS, 2 if quick else OPENINGS // 3
    )
    for name, seconds, limit in (
        ("Valkey", over_valkey, 100),
        ("a directory", over_directory, 100),
        ("Valkey, as services that refuse requests", over_http, 200),
    ):
        median, longest = _at(seconds, 0.5) * 1000, _at(seconds, 0.99) * 1000
        table.rows.append(
            [f"the others follow, over {name}", f"{median:.1f} ms", f"{longest:.1f} ms"]
        )
        reached = quartiles([1000 * second for second in seconds])
        table.figures[f"over {name}, ms"] = {"median": reached}
        table.verdicts.append(
            Verdict(f"milliseconds until the others follow, over {name}", reached, Target(limit))
        )
    table.note = (
        f"An idle process moves {idle[1]:,.0f} bytes a second, with {idle[0]:.1f} commands in the "
        f"server. A verdict and the reset after it are {spent[0]:.0f} commands and {spent[1]:,.0f} "
        f"bytes for all {MEMBERS} together."
    )
    client.close()
    return table


@asynccontextmanager
async def _fleet(
    stores: list[Any],
) -> AsyncIterator[list[tuple[Member, CircuitBreakerRegistry]]]:
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(_member(store)) for store in stores]
        await _until(lambda: all(member.is_connected for member, _ in fleet))
        yield fleet


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0.0005)


async def _follow(fleet: list[tuple[Member, CircuitBreakerRegistry]], openings: int) -> list[float]:
    breakers = [CircuitBreaker(NAME, registry=registry) for _, registry in fleet]
    seconds = list[float]()
    for _ in range(openings):
        began = time.perf_counter()
        _fail(breakers[0])
        for breaker in breakers[1:]:
            await _until(lambda breaker=breaker: breaker.is_open)  # type: ignore[misc]
            seconds.append(time.perf_counter() - began)
        await fleet[0][0].order(NAME, None, "again", None, opens=False)
        await _until(lambda: all(breaker.is_closed for breaker in breakers))
    return seconds


def _fail(breaker: CircuitBreaker) -> None:
    while breaker.is_closed:
        with contextlib.suppress(ZeroDivisionError):
            breaker.call_sync(lambda: 1 // 0)


def _sent(client: "redis.Redis") -> tuple[float, float]:
    info: dict[str, Any] = client.info("stats")
    moved = info["total_net_input_bytes"] + info["total_net_output_bytes"]
    return float(info["total_commands_processed"]), float(moved)


async def _flood(valkey: ValkeyServer, circuits: int) -> Table:
    """All circuits of one process open at once, and another process follows."""
    table = Table(
        f"{circuits:,} circuits open at once",
        ["", "another process has followed", "a read", "longest turn of the event loop"],
    )
    client = redis.Redis.from_url(valkey.url)
    empty = client.info("memory")["used_memory"]
    with tempfile.TemporaryDirectory() as folder, uncollected():
        for name, stores in (
            # On a busy machine, a read of so many circuits may take longer than the default.
            ("Valkey", [_store(valkey, "flood", timeout_seconds=5.0) for _ in range(2)]),
            ("a directory", [DirectoryStore(Path(folder)) for _ in range(2)]),
        ):
            async with _fleet(stores) as fleet:
                followed, read, block = await _open_all(fleet, stores[1], circuits)
            row = [f"{followed:.1f} s", f"{1000 * read:.0f} ms", f"{1000 * block:.0f} ms"]
            table.rows.append([f"over {name}", *row])
            reached = exactly(1000 * block)
            table.figures[f"over {name}, ms"] = {"longest turn": reached}
            table.verdicts.append(
                Verdict(f"milliseconds of the longest turn, over {name}", reached, Target(50))
            )
    megabytes = (client.info("memory")["used_memory"] - empty) / 1024**2
    client.close()
    table.note = (
        f"Valkey needs {megabytes:.1f} MB for them. "
        "A turn is what the event loop does before it looks at requests again, in processor time. "
        "Both processes share one event loop here. Garbage is not collected meanwhile."
    )
    return table


async def _open_all(
    fleet: list[tuple[Member, CircuitBreakerRegistry]], store: Store, circuits: int
) -> tuple[float, float, float]:
    breakers = [
        [
            CircuitBreaker(f"{number}", recovery_timeout=3600.0, registry=registry)
            for number in range(circuits)
        ]
        for _, registry in fleet
    ]
    blocks = list[float]()
    watching = asyncio.create_task(_watch(blocks))
    began = time.perf_counter()
    for breaker in breakers[0]:
        _fail(breaker)
        await asyncio.sleep(0)
    for breaker in breakers[1]:
        await _until(lambda breaker=breaker: breaker.is_open)  # type: ignore[misc]
    followed = time.perf_counter() - began
    began = time.perf_counter()
    await store.read()
    read = time.perf_counter() - began
    watching.cancel()
    return followed, read, max(blocks)


async def _watch(blocks: list[float]) -> None:
    """Note how much processor time each turn of the event loop takes."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0.005)
        blocks.append(time.thread_time() - began)
