"""What every breaker that is measured looks like to the benchmarks."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any

AsyncFunction = Callable[[], Awaitable[None]]

OURS = "example_service"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Forms:
    """The ways to call through one breaker; None where its library has no such form.

    Attributes:
        decorate: Makes a guarded function of a plain one.
        call: Runs a function once under guard.
        block: The object for ``async with``.
        sync_block: Makes the object for a plain ``with`` around a block that awaits.
    """

    decorate: Callable[[AsyncFunction], AsyncFunction] | None = None
    call: Callable[[AsyncFunction], Awaitable[None]] | None = None
    block: AbstractAsyncContextManager[object] | None = None
    sync_block: Callable[[], AbstractContextManager[object]] | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """By what a breaker judges, beside exceptions; the defaults ask for no further rule.

    Attributes:
        failures: So many failures open it: in a row, or as the fewest that make a share.
        window_calls: Judge the share of failures among so many calls.
        window_seconds: Judge the share of failures among the calls of so many seconds.
        failed_results: Look at what the function returns.
        slow_seconds: Count a call that takes longer.
        listens: Notify a listener of each success.
    """

    failures: int = 5
    window_calls: int | None = None
    window_seconds: float | None = None
    failed_results: bool = False
    slow_seconds: float | None = None
    listens: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """One library, and how to use it.

    Attributes:
        name: As the tables print it.
        refusal: What its breakers raise while they are open.
        construct: Makes a breaker from a name and a number of failures that opens it.
        forms: Offers the ways to call through such a breaker.
        constructs_breakers: False where ``construct`` does not make a breaker each time, so that
            neither its time nor its size means anything.
        tidy: Does what is left to do after breakers have been freed.
        serves_threads: Whether threads may share a breaker whose decorator takes plain functions.
        construct_with: Makes a breaker from a name and rules; returns None where the library lacks
            one of them.
    """

    name: str
    refusal: type[BaseException]
    construct: Callable[[str, int], Any]
    forms: Callable[[Any], Forms]
    constructs_breakers: bool = True
    tidy: Callable[[], object] = lambda: None
    serves_threads: bool = False
    construct_with: Callable[[str, Rules], Any | None] = lambda _name, _rules: None
