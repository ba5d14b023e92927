"""The features in `docs/comparison.md`: each function uses one and returns the outcome."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest

from example_service.infra import metrics
from example_service.infra.resilience import CircuitBreaker, FailureRate
from tests.docs.breakers_compared import (
    CLOCK,
    OURS,
    PYBREAKER,
    SHORT_SECONDS,
    DependencyError,
    Library,
    Listener,
    WrongRequestError,
    failing_items,
    half_open,
    local_time,
)

LONG_SECONDS = 60.0


async def guards(library: Library, use: Callable[[Any], Awaitable[Any]]) -> str:
    """Whether a form counts failures, and refuses calls after two have opened the circuit."""
    breaker, raised = library.make(2, LONG_SECONDS), []
    for _ in range(3):
        try:
            await use(breaker)
        except (DependencyError, library.refusal) as error:
            raised.append(error)
    return "yes" if raised and isinstance(raised[-1], library.refusal) else "no"


async def function(library: Library) -> str:
    """A plain function under the decorator."""

    async def use(breaker: Any) -> None:
        error = library.fail(breaker)
        assert error
        raise error

    return await guards(library, use)


async def coroutine_function(library: Library) -> str:
    """A coroutine function under the decorator."""

    async def failing() -> None:
        raise DependencyError

    return await guards(library, lambda breaker: library.decorate_async(breaker)(failing)())


async def generator_function(library: Library) -> str:
    """A generator function under the decorator, consumed to its end."""

    async def use(breaker: Any) -> None:
        list(library.decorate(breaker)(failing_items)())

    return await guards(library, use)


async def async_generator_function(library: Library) -> str:
    """An async generator function under the decorator, consumed to its end."""

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise DependencyError

    async def use(breaker: Any) -> None:
        items = library.decorate_async(breaker)(failing)()
        if not hasattr(items, "__aiter__"):
            items.close()
            return
        async for _ in items:
            pass

    return await guards(library, use)


async def block(library: Library) -> str:
    """A `with` block."""
    enter = library.block
    if enter is None:
        assert not hasattr(library.make(1, 1.0), "__enter__")
        return "no"

    async def use(breaker: Any) -> None:
        with enter(breaker):
            raise DependencyError

    return await guards(library, use)


async def async_block(library: Library) -> str:
    """An `async with` block."""
    enter = library.async_block
    if enter is None:
        assert not hasattr(library.make(1, 1.0), "__aenter__")
        return "no"

    async def use(breaker: Any) -> None:
        async with enter(breaker):
            raise DependencyError

    return await guards(library, use)


async def one_call(library: Library) -> str:
    """A call of a function that is not decorated."""
    call = library.call
    if call is None:
        assert not hasattr(library.parameters, "call")
        return "no"

    async def use(breaker: Any) -> None:
        call(breaker, lambda: list(failing_items()))

    return await guards(library, use)


async def probes(library: Library) -> str:
    """How many of ten concurrent callers a newly half-open circuit admits."""
    breaker, running = library.make(1, SHORT_SECONDS), 0
    if library is PYBREAKER:
        return "one" if not runs_in_two_threads(library) else "all"
    await half_open(library, breaker)
    enough = asyncio.Event()

    async def probe() -> None:
        nonlocal running
        running += 1
        await enough.wait()

    guarded = library.decorate_async(breaker)(probe)
    calls = [asyncio.ensure_future(guarded()) for _ in range(10)]
    for _ in range(5):
        await asyncio.sleep(0)
    let_through = running
    enough.set()
    await asyncio.gather(*calls, return_exceptions=True)
    return {10: "all", OURS.make(1, 1.0).half_open_max_calls: "`half_open_max_calls`"}[let_through]


def runs_in_two_threads(library: Library) -> bool:
    """Whether a call of a second thread can run during a call of the first."""
    breaker, second_runs = library.make(2, LONG_SECONDS), threading.Event()

    def notice() -> None:
        second_runs.set()

    second = threading.Thread(target=library.decorate(breaker)(notice))

    def first() -> bool:
        second.start()
        return second_runs.wait(0.2 if library is PYBREAKER else 30.0)

    runs: bool = library.decorate(breaker)(first)()
    second.join()
    return runs


async def threads(library: Library) -> str:
    """Calls of several threads at the same time."""
    return "yes" if runs_in_two_threads(library) else "one call at a time"


async def successes_to_close(library: Library) -> str:
    """Whether a half-open circuit can require more than one success to close."""
    breaker = library.make(2, SHORT_SECONDS)
    if library is PYBREAKER:
        breaker.success_threshold = 2
    await half_open(library, breaker, failures=2)
    library.decorate(breaker)(lambda: None)()
    if library is PYBREAKER:
        # If the circuit opens again, it must still be open when it is looked at.
        breaker.reset_timeout = LONG_SECONDS
    library.fail(breaker)
    # One failure opens the circuit if it is still half-open, but not if it is closed.
    return "`success_threshold`" if library.is_open(breaker) else "one"


async def share_of_failures(library: Library) -> str:
    """Whether a circuit opens when every second of a hundred calls fails."""
    breaker = library.make(2, LONG_SECONDS)
    if library is OURS:
        rule = FailureRate(threshold=0.5, window_calls=20)
        breaker = CircuitBreaker("compared", failure_rate=rule, registry=None)
    for _ in range(50):
        library.fail(breaker)
        if library.is_open(breaker):
            return "yes"
    return "no"


async def hanging(library: Library) -> str:
    """Whether a call that hangs can open a circuit with a threshold of one failure."""
    breaker = library.make(1, LONG_SECONDS)
    if library is OURS:
        breaker = CircuitBreaker(
            "compared",
            failure_threshold=1,
            slow_call_duration=SHORT_SECONDS,
            clock=CLOCK,
            registry=None,
        )
    end = asyncio.Event()

    async def hang() -> None:
        await end.wait()

    call = asyncio.ensure_future(library.decorate_async(breaker)(hang)())
    await asyncio.sleep(0)
    library.wait(SHORT_SECONDS)
    opened = library.is_open(breaker)
    end.set()
    await asyncio.gather(call, return_exceptions=True)
    return "`slow_call_duration`" if opened else "no"


def meaning(library: Library, error: BaseException) -> str:
    """How an exception between two failures counts, if two failures in a row open the circuit."""
    breaker = library.make(1, LONG_SECONDS)
    library.fail(breaker, error)
    if library.is_open(breaker):
        return "a failure"
    breaker = library.make(2, LONG_SECONDS)
    for value in (None, error, None):
        library.fail(breaker, value)
    return "neutral" if library.is_open(breaker) else "a success"


async def cancelled(library: Library) -> str:
    """A call that is cancelled."""
    return meaning(library, asyncio.CancelledError())


async def excluded(library: Library) -> str:
    """An exception that is configured not to be a failure."""
    return meaning(library, WrongRequestError())


async def opening_call(library: Library) -> str:
    """The exception raised by the call that opens the circuit."""
    if library is PYBREAKER:
        breaker = library.parameters(1, LONG_SECONDS, throw_new_error_on_trip=False)
        assert isinstance(library.fail(breaker), DependencyError)
        assert isinstance(library.fail(library.make(1, LONG_SECONDS)), library.refusal)
        return "the refusal, or its own error"
    error = library.fail(library.make(1, LONG_SECONDS))
    return "its own error" if isinstance(error, DependencyError) else "the refusal"


async def growing_wait(library: Library) -> str:
    """Whether a failed probe makes the next wait longer."""
    breaker = library.make(1, SHORT_SECONDS)
    await half_open(library, breaker)
    library.fail(breaker)
    library.wait(1.5 * SHORT_SECONDS)
    return "`backoff`" if library.is_open(breaker) else "no"


async def time_to_wait(library: Library) -> str:
    """Whether a refusal gives the seconds until the next attempt, in two time zones."""
    ways: dict[str, Callable[[Any, Any], float]] = {
        "error.retry_after": lambda _breaker, error: error.retry_after,
        "error.time_remaining": lambda _breaker, error: error.time_remaining.total_seconds(),
        "breaker.open_remaining": lambda breaker, _error: breaker.open_remaining,
    }
    found: dict[str, list[str]] = {}
    for zone in ("UTC", "XYZ-9"):
        with local_time(zone):
            breaker = library.make(1, LONG_SECONDS)
            library.fail(breaker)
            error = library.fail(breaker)
            for name, seconds in ways.items():
                with suppress(AttributeError, TypeError):
                    if 0 < seconds(breaker, error) < 2 * LONG_SECONDS:
                        found.setdefault(name, []).append(zone)
    for name, zones in found.items():
        return f"`{name}`" if len(zones) == 2 else f"`{name}`, right in {zones[0]} only"
    return "no"


async def listeners(library: Library) -> str:
    """An object that is called when a call fails."""
    listener = Listener()
    breaker = library.make(2, LONG_SECONDS)
    if "listeners" in inspect.signature(library.parameters).parameters:
        breaker = library.parameters(name="compared", listeners=[listener])
        name = "`listeners`"
    elif hasattr(library.parameters, "add_listener"):
        breaker.sync.add_listener(listener)
        name = "`add_listener`"
    library.fail(breaker)
    return name if listener.heard else "no"


async def fallback(library: Library) -> str:
    """A function that is called instead of a refusal."""
    if "fallback_function" not in inspect.signature(library.parameters).parameters:
        return "no"
    breaker = library.parameters(1, LONG_SECONDS, fallback_function=lambda: "instead")
    library.fail(breaker)
    return "`fallback_function`" if library.decorate(breaker)(str)() == "instead" else "no"


async def failed_result(library: Library) -> str:
    """A return value that counts as a failure."""
    if "is_failed_result" not in inspect.signature(library.parameters).parameters:
        return "no"
    breaker = library.parameters(
        "compared", failure_threshold=1, is_failed_result=lambda status: status == 503
    )
    library.decorate(breaker)(lambda: 503)()
    return "`is_failed_result`" if library.is_open(breaker) else "no"


async def announced_wait(library: Library) -> str:
    """A failure that says how long to wait, as `Retry-After` does."""
    if "open_for" not in inspect.signature(library.parameters).parameters:
        return "no"
    breaker = library.parameters("compared", open_for=lambda _error: 90.0)
    library.fail(breaker)
    error: Any = library.fail(breaker)
    return "`open_for`" if 60 < error.retry_after <= 90 else "no"


async def counts_in_redis(library: Library) -> str:
    """A store through which several processes share one count."""
    package = import_module(library.parameters.__module__.split(".", 1)[0])
    storage = find_spec(f"{package.__name__}.storage") if hasattr(package, "__path__") else None
    if storage:
        package = import_module(f"{package.__name__}.storage.redis")
    for name in ("CircuitRedisStorage", "AsyncRedisUnitOfWork"):
        if hasattr(package, name):
            return f"`{name}`"
    return "no"


async def clock(library: Library) -> str:
    """A clock that a test can move."""
    return "`clock`" if "clock" in inspect.signature(library.parameters).parameters else "no"


async def by_hand(library: Library) -> str:
    """Opening a circuit by hand."""
    breaker = library.make(1, LONG_SECONDS)
    if hasattr(breaker, "force_open"):
        breaker.force_open("maintenance")
        name = "`force_open()`"
    elif hasattr(breaker, "open"):
        breaker.open()
        name = "`open()`"
    else:
        return "no"
    return name if library.is_open(breaker) else "no"


async def prometheus(library: Library) -> str:
    """Metrics of a breaker without any further code."""
    assert metrics.__name__  # Here, importing them is enough.
    breaker = library.make(1, LONG_SECONDS)
    if library is OURS:
        breaker = CircuitBreaker("compared_by_prometheus", failure_threshold=1)
    library.fail(breaker)
    exported = generate_latest().decode()
    name = "compared_by_prometheus" if library is OURS else f"{library.name}_"
    return "yes" if name in exported else "no"


async def typed(library: Library) -> str:
    """Type hints for type checkers."""
    package = find_spec(library.parameters.__module__.split(".", 1)[0])
    assert package
    folders = map(Path, package.submodule_search_locations or [])
    return "yes" if any((folder / "py.typed").is_file() for folder in folders) else "no"


ROWS: dict[str, Callable[[Library], Awaitable[str]]] = {
    "Decorator, function": function,
    "Decorator, coroutine function": coroutine_function,
    "Decorator, generator": generator_function,
    "Decorator, async generator": async_generator_function,
    "`with` block": block,
    "`async with` block": async_block,
    "Call of one function": one_call,
    "Calls of several threads": threads,
    "Opens at a share of failures": share_of_failures,
    "Opens while calls hang": hanging,
    "A cancelled call is": cancelled,
    "An excluded exception is": excluded,
    "The call that opens raises": opening_call,
    "Half-open, of ten callers run": probes,
    "Successes to close": successes_to_close,
    "The wait grows": growing_wait,
    "A refusal says how long to wait": time_to_wait,
    "A failure says how long to wait": announced_wait,
    "A returned value can be a failure": failed_result,
    "Function instead of a refusal": fallback,
    "Opening by hand": by_hand,
    "Listeners": listeners,
    "One count for all processes": counts_in_redis,
    "A clock for tests": clock,
    "Prometheus metrics": prometheus,
    "Type hints": typed,
}
