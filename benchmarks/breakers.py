"""The breaker beside its floor and its rivals: the time of each form, memory, and a scrape."""

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, Self

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from benchmarks.rivals import (
    FLOOR,
    OURS,
    AsyncFunction,
    Contender,
    Forms,
    ours_with_more_rules,
)
from benchmarks.rounds import Plan, Samples, Slice, interleave
from benchmarks.tables import Table, Target, Verdict, exactly, with_quartiles
from example_service.infra.metrics import CircuitBreakerCollector
from example_service.infra.metrics.exposition import render

BARE = "bare await"
NATIVE = "three counters and a gauge, labelled"
SHARE_OF_BREAKERS = f"{OURS}, its breakers"
SHARE_OF_OTHERS = f"{OURS}, process, Python and HTTP"

FAILURE_THRESHOLD = 5
# So many failures in a row that no breaker opens while failures are being timed.
NEVER = 1_000_000_000
TASKS = 100
# A hundred tasks cost something to start; longer slices keep that share small.
TASK_SLICES = 5
BREAKERS_SCRAPED = 100
BREAKERS_WEIGHED = 1_000
REJECTIONS_WEIGHED = 100_000

FASTER = Target(1.0, strictly=True)

_Ignored = type[BaseException] | tuple[type[BaseException], ...]


class DependencyError(Exception):
    """What the guarded function raises when it is to fail."""


async def succeed() -> None:
    """Return at once."""


async def succeed_later() -> None:
    """Let every other task have its turn, then return."""
    await asyncio.sleep(0)


async def fail() -> None:
    """Raise at once.

    Raises:
        DependencyError: Always.
    """
    raise DependencyError


@dataclass(frozen=True, slots=True)
class Form:
    """One way to call through a breaker.

    Attributes:
        name: As the tables print it.
        slice: Makes the loop that calls a function through a breaker's forms and swallows one type
            of exception; None where the breaker lacks the form.
    """

    name: str
    slice: Callable[[Forms, AsyncFunction, _Ignored], Slice | None]


def through_decorator(forms: Forms, function: AsyncFunction, ignored: _Ignored) -> Slice | None:
    """Call a decorated function, time after time."""
    return None if forms.decorate is None else calling(forms.decorate(function), ignored)


def calling(function: AsyncFunction, ignored: _Ignored) -> Slice:
    """Call a function as it is, time after time."""

    async def run(count: int) -> None:
        for _ in range(count):
            try:  # noqa: SIM105  # `suppress` costs as much as a breaker.
                await function()
            except ignored:
                pass

    return run


def through_call(forms: Forms, function: AsyncFunction, ignored: _Ignored) -> Slice | None:
    """Hand a function to ``call``, time after time."""
    call = forms.call
    if call is None:
        return None

    async def run(count: int) -> None:
        for _ in range(count):
            try:  # noqa: SIM105  # `suppress` costs as much as a breaker.
                await call(function)
            except ignored:
                pass

    return run


def through_block(forms: Forms, function: AsyncFunction, ignored: _Ignored) -> Slice | None:
    """Call a function inside a block, time after time."""
    if forms.block is not None:
        return _inside_async_block(forms.block, function, ignored)
    if forms.sync_block is not None:
        return _inside_sync_block(forms.sync_block, function, ignored)
    return None


def _inside_async_block(
    block: AbstractAsyncContextManager[object], function: AsyncFunction, ignored: _Ignored
) -> Slice:
    async def run(count: int) -> None:
        for _ in range(count):
            try:
                async with block:
                    await function()
            except ignored:
                pass

    return run


def _inside_sync_block(
    enter: Callable[[], AbstractContextManager[object]], function: AsyncFunction, ignored: _Ignored
) -> Slice:
    async def run(count: int) -> None:
        for _ in range(count):
            try:
                with enter():
                    await function()
            except ignored:
                pass

    return run


DECORATOR = Form("decorator", through_decorator)
BLOCK = Form("async with", through_block)
CALL = Form("call", through_call)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the guarded function does and in which state its breaker is.

    Attributes:
        name: As the titles print it.
        function: What is guarded.
        failure_threshold: Given to every breaker.
        ignored: What the guarded function raises each time.
        refused: True when the breaker is opened first, so that each call is refused.
        tasks: How many tasks call at once.
        targets: For each form, by contender: the share of that one's time that ours may take.
        every_rival: The target against each rival that has none of its own.
    """

    name: str
    function: AsyncFunction
    failure_threshold: int
    targets: dict[Form, dict[str, Target]]
    ignored: _Ignored = ()
    refused: bool = False
    tasks: int = 1
    every_rival: Target | None = FASTER


SUCCESS = Scenario(
    name="Closed, the call succeeds",
    function=succeed,
    failure_threshold=FAILURE_THRESHOLD,
    targets={
        DECORATOR: {
            FLOOR: Target(1.3, stretch=1.0),
            "circuitbreaker": Target(0.4),
            "interlock-cb": Target(0.1),
        },
        BLOCK: {FLOOR: Target(1.25)},
        CALL: {FLOOR: Target(1.3, stretch=1.0), "interlock-cb": Target(0.1)},
    },
)
# What each further rule costs; no rival has the same ones.
MORE_RULES = Scenario(
    name="Closed, the call succeeds, with more rules",
    function=succeed,
    failure_threshold=FAILURE_THRESHOLD,
    targets={DECORATOR: {}},
    every_rival=None,
)
FAILURE = Scenario(
    name="Closed, the call fails below the threshold",
    function=fail,
    failure_threshold=NEVER,
    ignored=DependencyError,
    targets={
        DECORATOR: {FLOOR: Target(1.4), "circuitbreaker": Target(0.7)},
        BLOCK: {FLOOR: Target(1.4)},
        CALL: {FLOOR: Target(1.4)},
    },
    every_rival=None,
)
REJECTION = Scenario(
    name="Open, the call is refused",
    function=fail,
    failure_threshold=FAILURE_THRESHOLD,
    refused=True,
    targets={
        DECORATOR: {FLOOR: Target(1.0, stretch=0.75)},
        BLOCK: {FLOOR: Target(1.25, stretch=1.05)},
        CALL: {FLOOR: Target(1.0, stretch=0.75)},
    },
)
CONCURRENCY = Scenario(
    name=f"{TASKS} tasks on one breaker, each call awaits once inside",
    function=succeed_later,
    failure_threshold=FAILURE_THRESHOLD,
    tasks=TASKS,
    targets={form: {FLOOR: Target(1.12)} for form in (DECORATOR, BLOCK, CALL)},
)


async def time_scenario(scenario: Scenario, contenders: Sequence[Contender], plan: Plan) -> Table:
    """Every contender in every form that it has, beside the floor of the same form."""
    forms = list(scenario.targets)
    samples = {form: await _time_form(scenario, form, contenders, plan) for form in forms}
    table = Table(
        f"{scenario.name}, in floors of the same form", ["", *[form.name for form in forms]]
    )
    names = [contender.name for contender in contenders]
    for name in [BARE, *names]:
        cells = [_cell(samples[form], name) for form in forms]
        if any(cells):
            table.rows.append([name, *cells])
    for form in forms:
        for name in samples[form].nanoseconds:
            table.figures[f"{name}, {form.name}"] = {
                "nanoseconds": samples[form].time(name),
                "floors": samples[form].ratio(name, FLOOR),
                "ours in its time": samples[form].ratio(OURS, name),
            }
        table.verdicts += _verdicts(scenario, form, samples[form])
    return table


def _cell(samples: Samples, name: str) -> str:
    if name not in samples.nanoseconds:
        return ""
    return f"{samples.ratio(name, FLOOR).median:.2f} ({samples.time(name).median:,.0f} ns)"


def _verdicts(scenario: Scenario, form: Form, samples: Samples) -> list[Verdict]:
    """What the targets say of ours in one form: each of its own, then the fastest other rival."""
    own = scenario.targets[form]
    verdicts = [
        Verdict(f"{form.name}, in {name}'s time", samples.ratio(OURS, name), target)
        for name, target in own.items()
        if name in samples.nanoseconds
    ]
    others = samples.nanoseconds.keys() - own.keys() - {OURS, FLOOR, BARE}
    if scenario.every_rival is not None and others:
        fastest = min(others, key=lambda name: samples.time(name).median)
        what = f"{form.name}, in the time of the fastest rival, {fastest}"
        verdicts.append(Verdict(what, samples.ratio(OURS, fastest), scenario.every_rival))
    return verdicts


async def _time_form(
    scenario: Scenario, form: Form, contenders: Sequence[Contender], plan: Plan
) -> Samples:
    entrants: dict[str, Slice] = {}
    for contender in contenders:
        run = await prepare(scenario, form, contender)
        if run is not None:
            entrants[contender.name] = at_once(run, scenario.tasks)
    if not scenario.refused:
        entrants[BARE] = at_once(calling(scenario.function, scenario.ignored), scenario.tasks)
    if scenario.tasks == 1:
        return await interleave(entrants, plan)
    longer = replace(plan, slice_seconds=plan.slice_seconds * TASK_SLICES)
    return (await interleave(entrants, longer)).divided_by(scenario.tasks)


async def prepare(scenario: Scenario, form: Form, contender: Contender) -> Slice | None:
    """Bring a new breaker into the scenario's state; None when it lacks the form."""
    name = f"{contender.name}, {scenario.name}, {form.name}"
    forms = contender.forms(contender.construct(name, scenario.failure_threshold))
    if scenario.refused:
        return await _opened(forms, form, contender)
    return form.slice(forms, scenario.function, scenario.ignored)


async def _opened(forms: Forms, form: Form, contender: Contender) -> Slice | None:
    """Calls through a breaker that refuses every one of them.

    Raises:
        RuntimeError: If the breaker still lets calls through after twice its threshold.
    """
    calls = 0

    async def fail_and_count() -> None:
        nonlocal calls
        calls += 1
        raise DependencyError

    run = form.slice(forms, fail_and_count, (contender.refusal, DependencyError))
    if run is None:
        return None
    await run(2 * FAILURE_THRESHOLD)
    calls = 0
    await run(1)
    if calls:
        message = f"{contender.name} still lets calls through"
        raise RuntimeError(message)
    return run


def at_once(run: Slice, tasks: int) -> Slice:
    """Do the same in several tasks at once; one operation is then one of each task."""
    if tasks == 1:
        return run

    async def run_in_tasks(count: int) -> None:
        await asyncio.gather(*[run(count) for _ in range(tasks)])

    return run_in_tasks


async def time_construction(contenders: Sequence[Contender], plan: Plan) -> Table:
    """How long a breaker takes to make, registered and exported as shipped.

    What is left to do of breakers that were freed is not in it, but in a row of its own: a breaker
    that is made once is never freed.
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
    """How many bytes a breaker keeps: new, and for ours after calls and a scrape as well."""
    table = Table("Memory of a breaker", ["", "bytes"])
    weights = {
        contender.name: _bytes_per_breaker(contender.construct, breakers)
        for contender in contenders
        if contender.constructs_breakers
    }
    (ours,) = [contender for contender in contenders if contender.name == OURS]
    # What is still to be done about the breakers just freed must not happen while tracing.
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


async def use(forms: Forms, function: AsyncFunction) -> None:
    """Call a function once through ``call`` and swallow the failure it was told to raise."""
    run = through_call(forms, function, DependencyError)
    if run is not None:
        await run(1)


class Traced:
    """Measures what a block leaves behind in memory.

    Attributes:
        bytes_kept: Bytes allocated in the block and not given back by its end.
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
    """How many bytes an open breaker keeps of each refused call."""
    table = Table("Memory kept of a refused call", ["", "bytes"])
    # The breaker's own count of them may take a larger integer than before, once.
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


async def time_scrape(contenders: Sequence[Contender], plan: Plan) -> Table:
    """How long a whole scrape takes for each of its breakers, everything else in it included."""
    (ours,) = [contender for contender in contenders if contender.name == OURS]
    names = [f"scraped {number}" for number in range(BREAKERS_SCRAPED)]
    breakers = [ours.construct(name, FAILURE_THRESHOLD) for name in names]
    for breaker in breakers:
        for function in (succeed, fail):
            await use(ours.forms(breaker), function)
    only_breakers = CollectorRegistry()
    only_breakers.register(CircuitBreakerCollector())
    entrants = {
        OURS: _scraping(REGISTRY),
        SHARE_OF_BREAKERS: _scraping(only_breakers),
        NATIVE: _scraping(_native_metrics(names)),
    }
    samples = await interleave(entrants, replace(plan, rounds=plan.rounds // 4 + 2))
    samples = samples.divided_by(BREAKERS_SCRAPED)
    times = {
        OURS: samples.time(OURS),
        SHARE_OF_BREAKERS: samples.time(SHARE_OF_BREAKERS),
        SHARE_OF_OTHERS: samples.difference(OURS, SHARE_OF_BREAKERS),
        NATIVE: samples.time(NATIVE),
    }
    table = Table(f"A scrape with {BREAKERS_SCRAPED} breakers, per breaker", ["", "µs"])
    for name, nanoseconds in times.items():
        time = nanoseconds.in_microseconds()
        table.rows.append([name, f"{time.median:.1f}"])
        table.figures[name] = {"microseconds": time}
    time = times[OURS].in_microseconds()
    table.verdicts.append(Verdict("microseconds for each of ours", time, Target(25.0)))
    return table


def _scraping(registry: CollectorRegistry) -> Slice:
    async def run(count: int) -> None:
        for _ in range(count):
            render(registry)

    return run


def _native_metrics(names: Sequence[str]) -> CollectorRegistry:
    """What a breaker would cost at a scrape whose figures are native Prometheus metrics."""
    registry = CollectorRegistry()
    gauge = Gauge("state", "State.", ["name"], registry=registry)
    counters = [
        Counter(kind, "Calls.", ["name"], registry=registry)
        for kind in ("failures", "successes", "rejections")
    ]
    for name in names:
        gauge.labels(name).set(0)
        for counter in counters:
            counter.labels(name).inc()
    return registry


async def run(contenders: Sequence[Contender], plan: Plan, *, quick: bool) -> AsyncIterator[Table]:
    """Every table about breakers, as it gets ready.

    Args:
        contenders: Ours, the floor and the rivals.
        plan: How much is timed.
        quick: Weigh few breakers and rejections, so that the figures mean nothing.
    """
    # Rivals and ours write log lines; a handler that drops them keeps the terminal out of it.
    logging.getLogger().addHandler(logging.NullHandler())
    # The scrape comes first: it would also scrape the breakers of the other groups.
    yield await time_scrape(contenders, plan)
    for scenario in (SUCCESS, FAILURE, REJECTION, CONCURRENCY):
        yield await time_scenario(scenario, contenders, plan)
    ours_and_floor = [one for one in contenders if one.name in {OURS, FLOOR}]
    yield await time_scenario(MORE_RULES, [*ours_and_floor, *ours_with_more_rules()], plan)
    yield await time_construction(contenders, plan)
    yield await weigh(contenders, 50 if quick else BREAKERS_WEIGHED)
    yield await weigh_rejections(contenders, 500 if quick else REJECTIONS_WEIGHED)
