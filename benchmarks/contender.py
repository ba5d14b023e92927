"""The interface of the breakers under test."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any

AsyncFunction = Callable[[], Awaitable[None]]

OURS = "example_service"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Forms:
    """The ways to call through one breaker; None if its library has no such form.

    Attributes:
        decorate: Returns a guarded version of a function.
        call: Calls a function once through the breaker.
        block: The object for ``async with``.
        sync_block: Returns the object for a plain ``with`` around a block that awaits.
    """

    decorate: Callable[[AsyncFunction], AsyncFunction] | None = None
    call: Callable[[AsyncFunction], Awaitable[None]] | None = None
    block: AbstractAsyncContextManager[object] | None = None
    sync_block: Callable[[], AbstractContextManager[object]] | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a breaker judges besides exceptions; by default nothing.

    Attributes:
        failures: The failures that open it: in a row, or as the minimum for a rate.
        window_calls: Judge the failure rate among that many calls.
        window_seconds: Judge the failure rate among the calls of that many seconds.
        failed_results: Judge what the function returns.
        slow_seconds: Count calls that take longer.
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
        name: The name in the tables.
        refusal: The exception that its breakers raise while they are open.
        construct: Creates a breaker from a name and the number of failures that open it.
        forms: Returns the ways to call through such a breaker.
        constructs_breakers: False if ``construct`` does not create a breaker each time, so that
            neither its time nor its size means anything.
        tidy: Does the work that is left after breakers have been freed.
        serves_threads: Whether threads may share a breaker whose decorator takes plain functions.
        construct_with: Creates a breaker from a name and rules, or returns None if the library
            lacks one of them.
    """

    name: str
    refusal: type[BaseException]
    construct: Callable[[str, int], Any]
    forms: Callable[[Any], Forms]
    constructs_breakers: bool = True
    tidy: Callable[[], object] = lambda: None
    serves_threads: bool = False
    construct_with: Callable[[str, Rules], Any | None] = lambda _name, _rules: None
