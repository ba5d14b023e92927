"""Interleaved timing: every entrant runs in every round, and only ratios of one round count.

Nothing in a slice waits, so its time is the thread's processor time: what other processes do on the
same core is not in it. What remains of them, cold caches above all, slows whoever runs just then.
Slices of about a millisecond in an order drawn anew for each round spread that over everybody, and
the median over many rounds leaves it out; absolute times are printed for orientation only.
"""

import gc
import random
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import thread_time_ns

Slice = Callable[[int], Awaitable[None]]
"""Does as many operations as it is told, and nothing else that takes time."""

# Slices are sized by trial; a slice that still seems to take no time is large enough at this.
_MOST_OPERATIONS = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: Rounds; each runs every entrant once.
        slice_seconds: About how long one entrant runs within a round.
        seed: Decides the order within the rounds.
    """

    rounds: int = 200
    slice_seconds: float = 0.001
    seed: int = 20


QUICK = Plan(rounds=3, slice_seconds=0.0001)
"""Enough to see that everything runs; the figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The middle of a sample and how far its middle half reaches."""

    lower: float
    median: float
    upper: float

    def in_microseconds(self) -> "Quartiles":
        """The same, where these are nanoseconds."""
        return Quartiles(self.lower / 1_000, self.median / 1_000, self.upper / 1_000)


@dataclass(frozen=True, slots=True)
class Samples:
    """Nanoseconds per operation of each entrant, one figure a round."""

    nanoseconds: Mapping[str, list[float]]

    def divided_by(self, share: int) -> "Samples":
        """The same samples, where one operation was really several."""
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
        """How many times as long as another's an entrant's operation took in the same round."""
        pairs = zip(self.nanoseconds[entrant], self.nanoseconds[to], strict=True)
        return quartiles([mine / theirs for mine, theirs in pairs])

    def difference(self, entrant: str, to: str) -> Quartiles:
        """Nanoseconds by which an operation took longer than another's in the same round."""
        pairs = zip(self.nanoseconds[entrant], self.nanoseconds[to], strict=True)
        return quartiles([mine - theirs for mine, theirs in pairs])


def quartiles(figures: list[float]) -> Quartiles:
    """The three quartiles of at least two figures."""
    lower, median, upper = statistics.quantiles(figures, n=4, method="inclusive")
    return Quartiles(lower, median, upper)


async def interleave(
    entrants: Mapping[str, Slice], plan: Plan, after_slice: Callable[[], None] = lambda: None
) -> Samples:
    """Time every entrant in every round.

    Args:
        entrants: The loops to time, by name.
        plan: How much is measured.
        after_slice: Clears away what a slice left; its time does not count.

    The cyclic garbage collector runs before each round and is off during the slices, as in
    ``timeit``: nobody pays for garbage that another one left.
    """
    operations: dict[str, int] = {}
    for name, run in entrants.items():
        operations[name] = await _operations(run, plan, after_slice)
    nanoseconds: dict[str, list[float]] = {name: [] for name in entrants}
    order = list(entrants)
    shuffle = random.Random(plan.seed).shuffle
    # What lives through the whole run is not looked at again by every collection.
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
    """How many operations fill a slice; the first ones also warm the interpreter's caches."""
    wanted_ns = plan.slice_seconds * 1e9
    count = 1
    while count < _MOST_OPERATIONS:
        taken_ns = await _time(run, count)
        after_slice()
        if taken_ns >= wanted_ns / 4:
            return max(1, round(count * wanted_ns / taken_ns))
        count *= 2
    return count


async def _time(run: Slice, count: int) -> int:
    """Nanoseconds of processor time that a number of operations took."""
    gc.disable()
    try:
        begin = thread_time_ns()
        await run(count)
        return thread_time_ns() - begin
    finally:
        gc.enable()
