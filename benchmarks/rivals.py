"""Ours, the floor and the rivals, each as a contender.

A contender offers the forms that its library documents and no others: a form that is missing, or
that does not refuse calls while the circuit is open, is left out of that table. Rivals are imported
by name when they are asked for, so one that is not installed costs a line of output and no more.
"""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

from benchmarks.contender import FLOOR, OURS, Contender, Forms, Rules
from benchmarks.floor import FloorBreaker, FloorRefusedError

T = TypeVar("T")

# Long enough that no open breaker lets a probe through while it is being measured.
RECOVERY_SECONDS = 3600.0


def is_failed_result(result: object) -> bool:
    """Whether a result counts as a failure, which none does here."""
    return result is False


class _Listener:
    """Does nothing with each success, by the names that ours and interlock-cb call."""

    def on_success(self, _event: object) -> None:
        """A call of ours succeeded."""

    def on_call(self, **_facts: object) -> None:
        """A call of interlock-cb ended."""


class _Classifier:
    """Decides for interlock-cb what a failure is."""

    def is_failure(self, *, result: object, exception: Exception | None) -> bool:
        """Whether an exception or a result counts as a failure."""
        return exception is not None or is_failed_result(result)


def _ours() -> Contender:
    # Importing the metrics exports every breaker of the process, as in the running service.
    import_module("example_service.infra.metrics")
    library = import_module("example_service.infra.resilience")

    def with_rules(name: str, rules: Rules) -> Any:
        window = {"window_calls": rules.window_calls, "window_seconds": rules.window_seconds}
        return library.CircuitBreaker(
            name,
            failure_threshold=rules.failures,
            recovery_timeout=RECOVERY_SECONDS,
            failure_rate=library.FailureRate(**window) if any(window.values()) else None,
            is_failed_result=is_failed_result if rules.failed_results else None,
            slow_call_duration=rules.slow_seconds,
            listeners=[_Listener()] if rules.listens else [],
        )

    return Contender(
        name=OURS,
        refusal=library.CircuitOpenError,
        construct=lambda name, failure_threshold: library.CircuitBreaker(
            name, failure_threshold=failure_threshold, recovery_timeout=RECOVERY_SECONDS
        ),
        forms=lambda breaker: Forms(decorate=breaker.protected, call=breaker.call, block=breaker),
        tidy=lambda: len(library.circuit_breaker_registry),
        serves_threads=True,
        construct_with=with_rules,
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

    def with_rules(_name: str, rules: Rules) -> Any | None:
        if rules.window_seconds or rules.failed_results:
            return None
        # Slowness is judged in a window alone, as a share of its calls.
        judges_slow = {"slow_call_duration": rules.slow_seconds} if rules.slow_seconds else {}
        window_calls = rules.window_calls or (rules.failures if judges_slow else 0)
        breaker = library.CircuitBreakerConfig(
            rules.failures, RECOVERY_SECONDS, sliding_window_size=window_calls, **judges_slow
        )
        listeners = [lambda _event: None] if rules.listens else []
        return library.resilient(circuit_breaker=breaker, listeners=listeners)

    return Contender(
        name="pyresilience",
        refusal=import_module("pyresilience._exceptions").CircuitOpenError,
        construct=lambda name, failure_threshold: with_rules(name, Rules(failure_threshold)),
        forms=lambda decorator: Forms(decorate=decorator),
        # The breaker itself comes into being when a function is decorated.
        constructs_breakers=False,
        serves_threads=True,
        construct_with=with_rules,
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

    def with_rules(name: str, rules: Rules) -> Any:
        # It opens on a share of failures, not on a row of them; asking for as many calls before
        # the share counts is the nearest setting.
        settings: dict[str, Any] = {
            "minimum_number_of_calls": rules.failures,
            "wait_duration_in_open": RECOVERY_SECONDS,
        }
        if rules.window_seconds:
            settings["window_type"] = library.WindowType.TIME_BASED
            settings["window_size"] = int(rules.window_seconds)
        elif rules.window_calls:
            settings["window_size"] = rules.window_calls
        if rules.slow_seconds:
            settings["slow_call_duration_threshold"] = rules.slow_seconds
        return library.CircuitBreaker(
            name=name,
            config=library.Config(**settings),
            classifier=_Classifier() if rules.failed_results else None,
            listener=_Listener() if rules.listens else None,
        )

    return Contender(
        name="interlock-cb",
        refusal=library.CircuitOpenError,
        construct=lambda name, failure_threshold: with_rules(name, Rules(failure_threshold)),
        forms=lambda breaker: Forms(decorate=breaker, call=breaker.call, block=breaker),
        serves_threads=True,
        construct_with=with_rules,
    )


def _nopanic() -> Contender:
    library = import_module("nopanic")

    def with_rules(name: str, rules: Rules) -> Any | None:
        if rules.window_calls or rules.failed_results or rules.listens:
            return None
        # Like interlock-cb, it opens on a share of failures alone.
        return library.CircuitBreaker(
            name=name,
            min_calls=rules.failures,
            window=rules.window_seconds or 30.0,
            reset_timeout=RECOVERY_SECONDS,
            slow_call_duration=rules.slow_seconds,
        )

    return Contender(
        name="nopanic",
        refusal=library.CircuitOpen,
        construct=lambda name, failure_threshold: with_rules(name, Rules(failure_threshold)),
        forms=lambda breaker: Forms(decorate=breaker, call=breaker.acall, sync_block=breaker.guard),
        serves_threads=True,
        construct_with=with_rules,
    )


def _fluxgate() -> Contender:
    library, trippers = import_module("fluxgate"), import_module("fluxgate.trippers")
    windows, retries = import_module("fluxgate.windows"), import_module("fluxgate.retries")

    def with_rules(_name: str, rules: Rules) -> Any | None:
        if rules.failed_results or rules.listens:
            return None
        tripper = trippers.FailureStreak(rules.failures)
        enough = trippers.MinRequests(rules.failures)
        if rules.window_calls or rules.window_seconds:
            tripper |= enough & trippers.FailureRate(0.5)
        if rules.slow_seconds:
            tripper |= enough & trippers.SlowRate(0.5, threshold=rules.slow_seconds)
        window = (
            windows.TimeWindow(int(rules.window_seconds))
            if rules.window_seconds
            else windows.CountWindow(rules.window_calls or 100)
        )
        return library.AsyncCircuitBreaker(
            window=window, tripper=tripper, retry=retries.Cooldown(RECOVERY_SECONDS)
        )

    return Contender(
        name="fluxgate",
        refusal=library.CallNotPermittedError,
        construct=lambda name, failure_threshold: with_rules(name, Rules(failure_threshold)),
        forms=lambda breaker: Forms(decorate=breaker, call=breaker.call),
        construct_with=with_rules,
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
    "nopanic": _nopanic,
    "fluxgate": _fluxgate,
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
