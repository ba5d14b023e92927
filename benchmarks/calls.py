"""A call through each breaker in all its forms: closed, failing, refused, concurrent."""

from collections.abc import AsyncIterator, Sequence

from benchmarks.contender import FLOOR, Contender
from benchmarks.forms import (
    BLOCK,
    CALL,
    DECORATOR,
    DependencyError,
    fail,
    succeed,
    succeed_later,
)
from benchmarks.rounds import Plan
from benchmarks.scenario import FAILURE_THRESHOLD, Scenario, time_scenario
from benchmarks.tables import Table, Target

# A threshold so high that no breaker opens while failures are timed.
NEVER = 1_000_000_000
TASKS = 100

SUCCESS = Scenario(
    name="Closed, the call succeeds",
    function=succeed,
    failure_threshold=FAILURE_THRESHOLD,
    targets={
        DECORATOR: {
            FLOOR: Target(1.2, stretch=1.0),
            "circuitbreaker": Target(0.4),
            "interlock-cb": Target(0.1),
        },
        BLOCK: {FLOOR: Target(1.25)},
        CALL: {FLOOR: Target(1.25, stretch=1.0), "interlock-cb": Target(0.1)},
    },
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


async def run(contenders: Sequence[Contender], plan: Plan) -> AsyncIterator[Table]:
    """Yield a table for each state of the breaker as soon as it is ready.

    Args:
        contenders: Ours, the floor and the rivals.
        plan: How much to time.
    """
    for scenario in (SUCCESS, FAILURE, REJECTION, CONCURRENCY):
        yield await time_scenario(scenario, contenders, plan)
