"""One breaker in many threads at the same time: the cost of a call, beside that in one thread.

The threads call a plain function through the breaker's decorator, with `slow_call_duration` set,
because that rule keeps the most state. The CPU time of the whole process is measured: it includes
thread switches and waits for locks, but not other programs.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import process_time_ns
from typing import Any

from benchmarks.contender import Contender, Rules
from benchmarks.rounds import Plan, Samples
from benchmarks.tables import Table, Target, Verdict, with_quartiles

THREADS = 16
# Enough that every thread is preempted several times.
CALLS = 40_000
# A round takes as long as two hundred rounds of other groups.
MAX_ROUNDS = 20
TARGET = Target(2.0)


def time_threads(contenders: Sequence[Contender], plan: Plan, *, quick: bool) -> Table:
    """The cost of a call in one thread and in sixteen, for each thread-safe breaker."""
    calls = CALLS // 100 if quick else CALLS
    guarded = {
        contender.name: _guarded(contender) for contender in contenders if contender.serves_threads
    }
    nanoseconds: dict[str, list[float]] = {}
    for _ in range(min(plan.rounds, MAX_ROUNDS)):
        for name, function in guarded.items():
            for threads in (1, THREADS):
                taken = time_in_threads(function, calls, threads)
                nanoseconds.setdefault(_entrant(name, threads), []).append(taken / calls)
    samples = Samples(nanoseconds)
    table = Table(
        f"{THREADS} threads on one breaker with slow_call_duration, processor time of a call",
        ["", "one thread, ns", f"{THREADS} threads, ns", "times"],
    )
    for name in guarded:
        one, many = _entrant(name, 1), _entrant(name, THREADS)
        times = samples.ratio(many, one)
        alone, together = samples.time(one), samples.time(many)
        table.rows.append(
            [name, f"{alone.median:,.0f}", f"{together.median:,.0f}", with_quartiles(times, 2)]
        )
        table.figures[name] = {
            "nanoseconds, one thread": alone,
            f"nanoseconds, {THREADS} threads": together,
            "times": times,
        }
    ours = next(iter(guarded))
    times = samples.ratio(_entrant(ours, THREADS), _entrant(ours, 1))
    table.verdicts.append(Verdict(f"{THREADS} threads, in one thread's time", times, TARGET))
    return table


def _entrant(name: str, threads: int) -> str:
    return f"{name}, {threads}"


def _guarded(contender: Contender) -> Callable[[], object]:
    breaker = contender.construct_with(f"{contender.name} in threads", Rules(slow_seconds=1.0))
    decorate: Any = contender.forms(breaker).decorate

    def succeed() -> None:
        """Return at once."""

    guarded: Callable[[], object] = decorate(succeed)
    return guarded


def time_in_threads(function: Callable[[], object], calls: int, threads: int) -> int:
    """The CPU time of that many calls, divided among threads, in nanoseconds."""
    begin = Barrier(threads + 1)

    def work() -> None:
        begin.wait()
        for _ in range(calls // threads):
            function()

    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(work) for _ in range(threads)]
        before = process_time_ns()
        begin.wait()
        for worker in workers:
            worker.result()
        return process_time_ns() - before
