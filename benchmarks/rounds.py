"""Interleaved timing: every entrant runs in every round, and ratios are taken within a round.

Nothing in a slice waits, so it is timed by the thread's CPU time, which excludes other processes on
the same core. What remains of them, mainly cold caches, slows the entrant that runs just then.
Slices of about a millisecond in a random order spread that over all entrants, and the median of
many rounds removes it. Absolute times are printed for orientation only.
"""

import gc
import random
import statistics
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import thread_time_ns

Slice = Callable[[int], Awaitable[None]]
"""Does the given number of operations, and nothing else that takes time."""

# Slices are sized by trial; this is enough even if a slice still seems to take no time.
_MAX_OPERATIONS = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        rounds: The number of rounds, each of which runs every entrant once.
        slice_seconds: The approximate time of one entrant within a round.
        seed: Decides the order within each round.
    """

    rounds: int = 200
    slice_seconds: float = 0.001
    seed: int = 20


QUICK = Plan(rounds=3, slice_seconds=0.0001)
"""Enough to check that everything runs; the figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The median and the other two quartiles of a sample."""

    lower: float
    median: float
    upper: float

    def in_microseconds(self) -> "Quartiles":
        """The same quartiles, converted from nanoseconds."""
        return Quartiles(self.lower / 1_000, self.median / 1_000, self.upper / 1_000)


@dataclass(frozen=True, slots=True)
class Samples:
    """Nanoseconds per operation of each entrant, one value for each round."""

    nanoseconds: Mapping[str, list[float]]

    def divided_by(self, share: int) -> "Samples":
        """The same samples if each operation consisted of that many."""
        return Samples(
            {
                name: [figure / share for figure in figures]
                for name, figures in self.nanoseconds.items()
            }
        )

    def time(self, entrant: str) -> Quartiles:
        """Nanoseconds per operation over all rounds."""
        return quartiles(self.nanoseconds[entrant])

    def ratio(self, entrant: str, to: str) -> Quartiles:
        """The time of an entrant divided by that of another in the same round."""
        pairs = zip(self.nanoseconds[entrant], self.nanoseconds[to], strict=True)
        return quartiles([mine / theirs for mine, theirs in pairs])

    def difference(self, entrant: str, to: str) -> Quartiles:
        """The nanoseconds that an operation took longer than another's in the same round."""
        pairs = zip(self.nanoseconds[entrant], self.nanoseconds[to], strict=True)
        return quartiles([mine - theirs for mine, theirs in pairs])


def quartiles(figures: list[float]) -> Quartiles:
    """The quartiles of at least two values."""
    lower, median, upper = statistics.quantiles(figures, n=4, method="inclusive")
    return Quartiles(lower, median, upper)


async def interleave(
    entrants: Mapping[str, Slice], plan: Plan, after_slice: Callable[[], None] = lambda: None
) -> Samples:
    """Time every entrant in every round.

    Args:
        entrants: The loops to time, by name.
        plan: How much to measure.
        after_slice: Cleans up after a slice; its time does not count.

    The cyclic garbage collector runs before each round and is off during the slices, as in
    ``timeit``, so that no entrant pays for another one's garbage.
    """
    operations: dict[str, int] = {}
    for name, run in entrants.items():
        operations[name] = await _operations(run, plan, after_slice)
    nanoseconds: dict[str, list[float]] = {name: [] for name in entrants}
    order = list(entrants)
    shuffle = random.Random(plan.seed).shuffle
    # Objects that live for the whole run are left out of every collection.
    gc.collect()
    gc.freeze()
    try:
        for _ in range(plan.rounds):
            shuffle(order)
            gc.collect()
            for name in order:
                count = operations[name]
                nanoseconds[name].append(await _time(entrants[name], count) / count)
                after_slice()
    finally:
        gc.unfreeze()
    return Samples(nanoseconds)


async def _operations(run: Slice, plan: Plan, after_slice: Callable[[], None]) -> int:
    """The number of operations in a slice; the trial also warms the interpreter's caches."""
    wanted_ns = plan.slice_seconds * 1e9
    count = 1
    while count < _MAX_OPERATIONS:
        taken_ns = await _time(run, count)
        after_slice()
        if taken_ns >= wanted_ns / 4:
            return max(1, round(count * wanted_ns / taken_ns))
        count *= 2
    return count


async def _time(run: Slice, count: int) -> int:
    """The CPU time of a number of operations in nanoseconds."""
    with uncollected():
        begin = thread_time_ns()
        await run(count)
        return thread_time_ns() - begin


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage until the end of the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
