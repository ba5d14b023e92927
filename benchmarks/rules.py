"""The cost of each further rule on successful calls, beside rivals with such rules."""

from collections.abc import AsyncIterator, Sequence

from benchmarks.contender import FLOOR, Contender, Rules
from benchmarks.forms import DECORATOR, succeed
from benchmarks.rounds import Plan, Samples, Slice, interleave
from benchmarks.scenario import FASTER
from benchmarks.tables import Table, Target, Verdict
from benchmarks.threads import time_threads

# Windows are so wide and calls so quick that no rule opens a circuit.
RATE_OF_CALLS = Rules(window_calls=100)
RATE_OF_SECONDS = Rules(window_seconds=30.0)

RULES = {
    "failures in a row": (Rules(), Target(1.2, stretch=1.0)),
    "is_failed_result": (Rules(failed_results=True), Target(1.7)),
    "failure_rate of calls": (RATE_OF_CALLS, Target(1.7)),
    "failure_rate of seconds": (RATE_OF_SECONDS, Target(1.7)),
    "slow_call_duration": (Rules(slow_seconds=1.0), Target(2.6)),
    "result, rate of seconds and slow calls": (
        Rules(window_seconds=30.0, failed_results=True, slow_seconds=1.0),
        Target(3.5),
    ),
    "a listener's on_success": (Rules(listens=True), Target(4.0)),
}


async def run(contenders: Sequence[Contender], plan: Plan, *, quick: bool) -> AsyncIterator[Table]:
    """Yield the tables about further rules as soon as they are ready.

    Args:
        contenders: Ours, the floor and the rivals.
        plan: How much to time.
        quick: Make few calls in threads, so that the figures mean nothing.
    """
    yield await time_rules(contenders, plan)
    yield time_threads(contenders, plan, quick=quick)


async def time_rules(contenders: Sequence[Contender], plan: Plan) -> Table:
    """A decorated call under each rule in floors of the decorator, by library."""
    libraries = [contender for contender in contenders if _calls(contender, Rules()) is not None]
    (floor,) = [contender for contender in contenders if contender.name == FLOOR]
    entrants = {FLOOR: DECORATOR.slice(floor.forms(floor.construct(FLOOR, 5)), succeed, ())}
    for rule, (rules, _) in RULES.items():
        for library in libraries:
            entrants[_entrant(library, rule)] = _calls(library, rules)
    timed = {name: calls for name, calls in entrants.items() if calls is not None}
    samples = await interleave(timed, plan)
    table = Table(
        "Closed, the call succeeds, under further rules, in floors of the decorator",
        ["", *[library.name for library in libraries]],
    )
    for rule, (_, target) in RULES.items():
        names = [_entrant(library, rule) for library in libraries]
        table.rows.append([rule, *[_cell(samples, name) for name in names]])
        for name in names:
            if name in timed:
                figures = {"nanoseconds": samples.time(name), "floors": samples.ratio(name, FLOOR)}
                table.figures[name] = figures
        table.verdicts += _verdicts(samples, rule, names, target)
    return table


def _entrant(library: Contender, rule: str) -> str:
    return f"{library.name}, {rule}"


def _calls(library: Contender, rules: Rules) -> Slice | None:
    breaker = library.construct_with(f"{library.name} by {rules}", rules)
    return None if breaker is None else DECORATOR.slice(library.forms(breaker), succeed, ())


def _cell(samples: Samples, name: str) -> str:
    if name not in samples.nanoseconds:
        return ""
    return f"{samples.ratio(name, FLOOR).median:.2f} ({samples.time(name).median:,.0f} ns)"


def _verdicts(samples: Samples, rule: str, names: Sequence[str], target: Target) -> list[Verdict]:
    """The verdicts on ours under one rule: in floors, and against the fastest rival."""
    ours, *others = (name for name in names if name in samples.nanoseconds)
    verdicts = [Verdict(f"{rule}, in floors", samples.ratio(ours, FLOOR), target)]
    if others:
        fastest = min(others, key=lambda name: samples.time(name).median)
        library = fastest.partition(",")[0]
        what = f"{rule}, in the time of the fastest rival, {library}"
        verdicts.append(Verdict(what, samples.ratio(ours, fastest), FASTER))
    return verdicts
