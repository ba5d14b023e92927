"""Times one state of the breaker and one function for each contender and form."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.contender import FLOOR, OURS, AsyncFunction, Contender, Forms
from benchmarks.forms import DependencyError, Form, Ignored, calling
from benchmarks.rounds import Plan, Samples, Slice, interleave
from benchmarks.tables import Table, Target, Verdict

BARE = "bare await"
FAILURE_THRESHOLD = 5
# Starting a hundred tasks takes time; longer slices keep its share small.
TASK_SLICES = 5

FASTER = Target(1.0, strictly=True)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the guarded function does and in which state its breaker is.

    Attributes:
        name: The name in the titles.
        function: The guarded function.
        failure_threshold: The threshold of every breaker.
        ignored: The exception that the guarded function raises each time.
        refused: True if the breaker is opened first, so that each call is refused.
        tasks: The number of concurrent tasks.
        targets: The share of a contender's time that ours may take, by form and contender.
        every_rival: The target against each rival without its own target.
    """

    name: str
    function: AsyncFunction
    failure_threshold: int
    targets: dict[Form, dict[str, Target]]
    ignored: Ignored = ()
    refused: bool = False
    tasks: int = 1
    every_rival: Target | None = FASTER


async def time_scenario(scenario: Scenario, contenders: Sequence[Contender], plan: Plan) -> Table:
    """Time every contender in all its forms, beside the floor of the same form."""
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
    """The verdicts on ours in one form: on its targets, then against the fastest rival."""
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
    """Bring a new breaker into the scenario's state, or return None if it lacks the form."""
    name = f"{contender.name}, {scenario.name}, {form.name}"
    forms = contender.forms(contender.construct(name, scenario.failure_threshold))
    if scenario.refused:
        return await _opened(forms, form, contender)
    return form.slice(forms, scenario.function, scenario.ignored)


async def _opened(forms: Forms, form: Form, contender: Contender) -> Slice | None:
    """Return calls through a breaker that refuses all of them.

    Raises:
        RuntimeError: If the breaker still admits calls after twice its threshold.
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
    """Run a slice in several tasks at once; an operation then means one of each task."""
    if tasks == 1:
        return run

    async def run_in_tasks(count: int) -> None:
        await asyncio.gather(*[run(count) for _ in range(tasks)])

    return run_in_tasks
