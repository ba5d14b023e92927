"""A dependency that hangs: which circuits open, and when.

Nothing is timed here. First, eight calls that never return are made one after another, each cut off
by an `asyncio.timeout` around the breaker. Then eight run at once and hang. Then eight are each
cancelled at once, as by a client that disconnects, which says nothing about the dependency. A ninth
call shows whether the circuit is open. Three failures open every breaker. A library that can judge
slow calls takes part a second time, with half the timeout as its limit.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from benchmarks.contender import FLOOR, AsyncFunction, Contender, Rules
from benchmarks.tables import Table, exactly

CALLS = 8
FAILURE_THRESHOLD = 3
TIMEOUT_SECONDS = 0.02
SLOW_SECONDS = TIMEOUT_SECONDS / 2


class HangingDependency:
    """A dependency that never responds.

    Attributes:
        calls: The number of calls that have reached it.
    """

    def __init__(self) -> None:
        self.calls = 0

    async def ask(self) -> None:
        """Wait for a response that never comes."""
        self.calls += 1
        await asyncio.Event().wait()


async def run(contenders: Sequence[Contender]) -> AsyncIterator[Table]:
    """Let every contender except the floor call a dependency that hangs.

    Args:
        contenders: Ours and the rivals, in the order of the table.
    """
    table = Table(
        f"{CALLS} calls to a dependency that hangs, {FAILURE_THRESHOLD} failures open",
        ["", "cut off by an outer timeout", "while all of them hang", "clients hang up at once"],
    )
    for contender in _with_slow_calls(contenders):
        cut_off, hung_up = await open_by_timeouts(contender), await open_by_hanging_up(contender)
        refuses = await is_open_while_calls_hang(contender)
        table.rows.append(
            [contender.name, _words(cut_off), "open" if refuses else "closed", _words(hung_up)]
        )
        table.figures[contender.name] = {
            what: exactly(calls)
            for what, calls in (("calls cut off", cut_off), ("clients hung up", hung_up))
            if calls is not None
        }
    yield table


def _with_slow_calls(contenders: Sequence[Contender]) -> list[Contender]:
    entrants = []
    for contender in contenders:
        if contender.name == FLOOR:
            continue
        entrants.append(contender)
        if contender.construct_with("slow calls", Rules(slow_seconds=SLOW_SECONDS)) is not None:
            entrants.append(_judging_slow(contender))
    return entrants


def _judging_slow(contender: Contender) -> Contender:
    return replace(
        contender,
        name=f"{contender.name}, slow calls",
        construct=lambda name, failures: contender.construct_with(
            name, Rules(failures, slow_seconds=SLOW_SECONDS)
        ),
    )


def _words(calls: int | None) -> str:
    return f"never in {CALLS}" if calls is None else f"open after {calls}"


async def open_by_timeouts(contender: Contender) -> int | None:
    """The number of hanging calls that open the circuit by an outer timeout, or None."""
    dependency = HangingDependency()
    call = _guarded(contender, dependency, "cut off")
    for _ in range(CALLS + 1):
        if await _is_refused(contender, call):
            return dependency.calls
    return None


async def is_open_while_calls_hang(contender: Contender) -> bool:
    """Whether another call is refused while calls hang without a timeout."""
    call = _guarded(contender, HangingDependency(), "hanging")
    tasks = [asyncio.ensure_future(call()) for _ in range(CALLS)]
    await asyncio.sleep(TIMEOUT_SECONDS)
    refused = await _is_refused(contender, call)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return refused


async def open_by_hanging_up(contender: Contender) -> int | None:
    """The number of cancelled calls that open the circuit, or None."""
    dependency = HangingDependency()
    call = _guarded(contender, dependency, "hung up")
    for _ in range(CALLS + 1):
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, contender.refusal):
            return dependency.calls
    return None


async def _is_refused(contender: Contender, call: AsyncFunction) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await call()
    except contender.refusal:
        return True
    except TimeoutError:
        pass
    return False


def _guarded(contender: Contender, dependency: HangingDependency, situation: str) -> AsyncFunction:
    """Call the dependency through a new breaker, in the first form that it has.

    Raises:
        ValueError: If there is neither a decorator nor a plain block.
    """
    forms = contender.forms(
        contender.construct(f"{contender.name}, {situation}", FAILURE_THRESHOLD)
    )

    # Not every decorator accepts a method.
    async def ask() -> None:
        await dependency.ask()

    if forms.decorate is not None:
        return forms.decorate(ask)
    if (enter := forms.sync_block) is None:
        message = f"{contender.name} has no form for calls"
        raise ValueError(message)

    async def ask_in_block() -> None:
        with enter():
            await ask()

    return ask_in_block
