"""Creating a breaker: its time, and the memory that it and its refused calls keep."""

import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import cycle, islice
from typing import Any, Self

from prometheus_client import REGISTRY

from benchmarks.calls import REJECTION
from benchmarks.contender import FLOOR, OURS, Contender
from benchmarks.forms import BLOCK, DECORATOR, fail, succeed, use
from benchmarks.rounds import Plan, Slice, interleave
from benchmarks.scenario import FAILURE_THRESHOLD, prepare
from benchmarks.tables import Table, Target, Verdict, exactly, with_quartiles
from example_service.infra.metrics.exposition import render

BREAKERS_WEIGHED = 1_000
REJECTIONS_WEIGHED = 100_000


async def time_construction(contenders: Sequence[Contender], plan: Plan) -> Table:
    """The time to create a breaker, registered and exported as by default.

    Cleaning up after freed breakers has its own row, because a breaker that is created once is
    never freed.
    """
    names = [f"constructed {number}" for number in range(BREAKERS_WEIGHED)]
    kept: list[object] = []

    def constructing(construct: Callable[[str, int], object]) -> Slice:
        async def run(count: int) -> None:
            for name in islice(cycle(names), count):
                kept.append(construct(name, FAILURE_THRESHOLD))  # noqa: PERF401

        return run

    async def make_and_free(count: int) -> None:
        for name in islice(cycle(names), count):
            ours.construct(name, FAILURE_THRESHOLD)

    def free() -> None:
        kept.clear()
        ours.tidy()

    (ours,) = [contender for contender in contenders if contender.name == OURS]
    entrants = {
        contender.name: constructing(contender.construct)
        for contender in contenders
        if contender.constructs_breakers
    }
    entrants[f"{OURS}, made and freed"] = make_and_free
    samples = await interleave(entrants, plan, after_slice=free)
    table = Table("Making a breaker", ["", "µs", "in floors"])
    for name in sorted(samples.nanoseconds, key=lambda name: samples.time(name).median):
        time, floors = samples.time(name).in_microseconds(), samples.ratio(name, FLOOR)
        table.rows.append([name, f"{time.median:.2f}", with_quartiles(floors, 2)])
        table.figures[name] = {"microseconds": time, "floors": floors}
    time = samples.time(OURS).in_microseconds()
    table.verdicts.append(Verdict("microseconds for one of ours", time, Target(3.0)))
    return table


async def weigh(contenders: Sequence[Contender], breakers: int) -> Table:
    """The bytes that a breaker keeps: when new, and for ours also after calls and a scrape."""
    table = Table("Memory of a breaker", ["", "bytes"])
    weights = {
        contender.name: _bytes_per_breaker(contender.construct, breakers)
        for contender in contenders
        if contender.constructs_breakers
    }
    (ours,) = [contender for contender in contenders if contender.name == OURS]
    # The cleanup of breakers that were just freed must not happen while tracing.
    ours.tidy()
    used = f"{OURS}, used and scraped"
    weights[used] = await _bytes_per_used_breaker(ours, breakers)
    for name, weight in sorted(weights.items(), key=lambda item: item[1]):
        table.rows.append([name, f"{weight:,.0f}"])
        table.figures[name] = {"bytes": exactly(weight)}
    table.verdicts.append(Verdict("bytes for one of ours", exactly(weights[OURS]), Target(800.0)))
    return table


def _bytes_per_breaker(construct: Callable[[str, int], object], breakers: int) -> float:
    names = [f"weighed {number}" for number in range(breakers)]
    kept: list[object] = [None] * breakers
    with Traced() as traced:
        for number, name in enumerate(names):
            kept[number] = construct(name, FAILURE_THRESHOLD)
    return traced.bytes_kept / breakers


async def _bytes_per_used_breaker(contender: Contender, breakers: int) -> float:
    names = [f"used {number}" for number in range(breakers)]
    kept: list[Any] = [None] * breakers
    with Traced() as traced:
        for number, name in enumerate(names):
            kept[number] = contender.construct(name, FAILURE_THRESHOLD)
            for function in (succeed, fail, succeed):
                await use(contender.forms(kept[number]), function)
        render(REGISTRY)
    return traced.bytes_kept / breakers


class Traced:
    """Measures the memory that a block leaves allocated.

    Attributes:
        bytes_kept: Bytes allocated in the block and not freed by its end.
    """

    def __init__(self) -> None:
        self.bytes_kept = 0
        self._before = 0

    def __enter__(self) -> Self:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_exception: object) -> None:
        gc.collect()
        self.bytes_kept = tracemalloc.get_traced_memory()[0] - self._before
        tracemalloc.stop()


async def weigh_rejections(contenders: Sequence[Contender], rejections: int) -> Table:
    """The bytes that an open breaker keeps for each refused call."""
    table = Table("Memory kept of a refused call", ["", "bytes"])
    # The breaker's own count may grow to a larger integer once.
    target = Target(0.01)
    for contender in contenders:
        run = await prepare(REJECTION, DECORATOR, contender)
        if run is None:
            run = await prepare(REJECTION, BLOCK, contender)
        if run is None:
            continue
        await run(BREAKERS_WEIGHED)
        with Traced() as traced:
            await run(rejections)
        kept = traced.bytes_kept / rejections
        table.rows.append([contender.name, f"{kept:,.2f}"])
        table.figures[contender.name] = {"bytes": exactly(kept)}
        if contender.name == OURS:
            table.verdicts.append(Verdict("bytes kept by ours", exactly(kept), target))
    return table


async def run(contenders: Sequence[Contender], plan: Plan, *, quick: bool) -> AsyncIterator[Table]:
    """Yield the tables on the time and the memory of a breaker as soon as they are ready.

    Args:
        contenders: Ours, the floor and the rivals.
        plan: How much to time.
        quick: Weigh few breakers and rejections, so that the figures mean nothing.
    """
    yield await time_construction(contenders, plan)
    yield await weigh(contenders, 50 if quick else BREAKERS_WEIGHED)
    yield await weigh_rejections(contenders, 500 if quick else REJECTIONS_WEIGHED)
