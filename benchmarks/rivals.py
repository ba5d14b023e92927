"""Every breaker that is measured, ours, the floor and the rivals, in one shape.

A contender offers the forms that its library documents and no others: a form that is missing, or
that does not refuse calls while the circuit is open, is left out of that table. Rivals are imported
by name when they are asked for, so one that is not installed costs a line of output and no more.
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

from benchmarks.floor import FloorBreaker, FloorRefusedError

T = TypeVar("T")
AsyncFunction = Callable[[], Awaitable[None]]

OURS = "example_service"
FLOOR = "floor"

# Long enough that no open breaker lets a probe through while it is being measured.
RECOVERY_SECONDS = 3600.0


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
        judge_slow: Makes a breaker, from a name, a number of failures that opens it and a number of
            seconds after which a call counts as slow; None where the library has no such rule.
    """

    name: str
    refusal: type[BaseException]
    construct: Callable[[str, int], Any]
    forms: Callable[[Any], Forms]
    constructs_breakers: bool = True
    tidy: Callable[[], object] = lambda: None
    judge_slow: Callable[[str, int, float], Any] | None = None


def _ours() -> Contender:
    # Importing the metrics exports every breaker of the process, as in the running service.
    import_module("example_service.infra.metrics")
    library = import_module("example_service.infra.resilience")
    return Contender(
        name=OURS,
        refusal=library.CircuitOpenError,
        construct=lambda name, failure_threshold: library.CircuitBreaker(
            name, failure_threshold=failure_threshold, recovery_timeout=RECOVERY_SECONDS
        ),
        forms=lambda breaker: Forms(decorate=breaker.protected, call=breaker.call, block=breaker),
        tidy=lambda: len(library.circuit_breaker_registry),
        judge_slow=lambda name, failure_threshold, slow_seconds: library.CircuitBreaker(
            name,
            failure_threshold=failure_threshold,
            recovery_timeout=RECOVERY_SECONDS,
            slow_call_duration=slow_seconds,
        ),
    )


def ours_with_more_rules() -> list[Contender]:
    """Ours, once with each of the rules that it has beside failures in a row."""
    library = import_module("example_service.infra.resilience")
    rules = {
        "failure_rate of calls": {"failure_rate": library.FailureRate(window_calls=100)},
        "failure_rate of seconds": {"failure_rate": library.FailureRate(window_seconds=30.0)},
        "slow_call_duration": {"slow_call_duration": 1.0},
    }
    return [_ours_with(f"{OURS}, {name}", rule) for name, rule in rules.items()]


def _ours_with(name: str, rule: dict[str, object]) -> Contender:
    library = import_module("example_service.infra.resilience")
    return replace(
        _ours(),
        name=name,
        construct=lambda breaker_name, failure_threshold: library.CircuitBreaker(
            breaker_name,
            failure_threshold=failure_threshold,
            recovery_timeout=RECOVERY_SECONDS,
            **rule,
        ),
    )


def _floor() -> Contender:
    return Contender(
        name=FLOOR,
        refusal=FloorRefusedError,
        construct=lambda name, failure_threshold: FloorBreaker(
            name, failure_threshold, RECOVERY_SECONDS
        ),
        forms=lambda breaker: Forms(decorate=breaker.protected, call=breaker.call, block=breaker),
    )


def _circuitbreaker() -> Contender:
    library = import_module("circuitbreaker")
    return Contender(
        name="circuitbreaker",
        refusal=library.CircuitBreakerError,
        construct=lambda name, failure_threshold: library.CircuitBreaker(
            failure_threshold, RECOVERY_SECONDS, name=name
        ),
        # Its ``with`` block and ``call_async`` never refuse a call: only the decorator guards.
        forms=lambda breaker: Forms(decorate=breaker),
    )


def _purgatory() -> Contender:
    library = import_module("purgatory")
    factory = library.AsyncCircuitBreakerFactory()
    return Contender(
        name="purgatory",
        refusal=import_module("purgatory.domain.model").OpenedState,
        construct=lambda name, failure_threshold: _result(
            factory.get_breaker(name, failure_threshold, RECOVERY_SECONDS)
        ),
        forms=lambda breaker: Forms(decorate=factory(breaker.context.name), block=breaker),
        # The factory keeps its breakers by name, and hands the same one out again.
        constructs_breakers=False,
    )


def _hyx() -> Contender:
    library = import_module("hyx.circuitbreaker")
    return Contender(
        name="hyx",
        refusal=import_module("hyx.circuitbreaker.exceptions").BreakerFailing,
        construct=lambda _name, failure_threshold: library.consecutive_breaker(
            failure_threshold=failure_threshold, recovery_time_secs=RECOVERY_SECONDS
        ),
        forms=lambda breaker: Forms(decorate=breaker, block=breaker),
    )


def _aiobreaker() -> Contender:
    library = import_module("aiobreaker")
    return Contender(
        name="aiobreaker",
        refusal=library.CircuitBreakerError,
        construct=lambda name, failure_threshold: library.CircuitBreaker(
            fail_max=failure_threshold,
            timeout_duration=timedelta(seconds=RECOVERY_SECONDS),
            name=name,
        ),
        forms=lambda breaker: Forms(decorate=breaker, call=breaker.call_async),
    )


def _pybreaker() -> Contender:
    library = import_module("pybreaker")
    return Contender(
        name="pybreaker",
        refusal=library.CircuitBreakerError,
        construct=lambda name, failure_threshold: library.CircuitBreaker(
            failure_threshold, RECOVERY_SECONDS, name=name
        ),
        # Decorator and call do not await: a plain ``with`` is the form that asyncio code can use.
        forms=lambda breaker: Forms(sync_block=breaker.calling),
    )


def _pyresilience() -> Contender:
    library = import_module("pyresilience")
    return Contender(
        name="pyresilience",
        refusal=import_module("pyresilience._exceptions").CircuitOpenError,
        construct=lambda _name, failure_threshold: library.resilient(
            circuit_breaker=library.CircuitBreakerConfig(failure_threshold, RECOVERY_SECONDS)
        ),
        forms=lambda decorator: Forms(decorate=decorator),
        # The breaker itself comes into being when a function is decorated.
        constructs_breakers=False,
        # Slowness is judged in a window alone, as a share of its calls.
        judge_slow=lambda _name, failure_threshold, slow_seconds: library.resilient(
            circuit_breaker=library.CircuitBreakerConfig(
                failure_threshold,
                RECOVERY_SECONDS,
                sliding_window_size=failure_threshold,
                slow_call_duration=slow_seconds,
            )
        ),
    )


def _aioresilience() -> Contender:
    library = import_module("aioresilience")
    return Contender(
        name="aioresilience",
        refusal=library.CircuitBreakerOpenError,
        construct=lambda name, failure_threshold: library.CircuitBreaker(
            name, library.CircuitConfig(failure_threshold, RECOVERY_SECONDS)
        ),
        forms=lambda breaker: Forms(
            decorate=library.with_circuit_breaker(breaker), call=breaker.call
        ),
    )


def _interlock_cb() -> Contender:
    library = import_module("interlock")
    return Contender(
        name="interlock-cb",
        refusal=library.CircuitOpenError,
        # It opens on a share of failures, not on a row of them; asking for as many calls before
        # the share counts is the nearest setting.
        construct=lambda name, failure_threshold: library.CircuitBreaker(
            name=name,
            config=library.Config(
                minimum_number_of_calls=failure_threshold, wait_duration_in_open=RECOVERY_SECONDS
            ),
        ),
        forms=lambda breaker: Forms(decorate=breaker, call=breaker.call, block=breaker),
        judge_slow=lambda name, failure_threshold, slow_seconds: library.CircuitBreaker(
            name=name,
            config=library.Config(
                minimum_number_of_calls=failure_threshold,
                wait_duration_in_open=RECOVERY_SECONDS,
                slow_call_duration_threshold=slow_seconds,
            ),
        ),
    )


_RIVALS: dict[str, Callable[[], Contender]] = {
    "circuitbreaker": _circuitbreaker,
    "purgatory": _purgatory,
    "hyx": _hyx,
    "aiobreaker": _aiobreaker,
    "pybreaker": _pybreaker,
    "pyresilience": _pyresilience,
    "aioresilience": _aioresilience,
    "interlock-cb": _interlock_cb,
}


def load_contenders() -> tuple[list[Contender], list[str]]:
    """Prepare ours, the floor and the rivals that are installed.

    Returns:
        The contenders, ours first and the floor second, and the names of rivals not installed.
    """
    contenders = [_ours(), _floor()]
    missing: list[str] = []
    for name, load in _RIVALS.items():
        try:
            contenders.append(load())
        except ImportError:
            missing.append(name)
    return contenders, missing


def _result(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends and hand out what it returned."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        returned: T = stop.value
        return returned
    coroutine.close()
    message = "the coroutine suspended, so its result is not there yet"
    raise RuntimeError(message)
