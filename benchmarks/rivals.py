"""Ours, the floor and the rivals, each as a contender.

A contender has only the forms that its library documents. A form that is missing, or that does not
refuse calls while the circuit is open, is left out of the tables. Rivals are imported by name, and
one that is not installed is left out with a message.
"""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

from benchmarks.contender import FLOOR, OURS, Contender, Forms, Rules
from benchmarks.floor import FloorBreaker, FloorRefusedError

T = TypeVar("T")

# Long enough that no open breaker admits a probe during the measurement.
RECOVERY_SECONDS = 3600.0


def is_failed_result(result: object) -> bool:
    """Whether a result counts as a failure; here none does."""
    return result is False


class _Listener:
    """Ignores each success; it has the methods of our listeners and interlock-cb's."""

    def on_success(self, _event: object) -> None:
        """Called by ours after a success."""

    def on_call(self, **_facts: object) -> None:
        """Called by interlock-cb after a call."""


class _Classifier:
    """Decides for interlock-cb which calls have failed."""

    def is_failure(self, *, result: object, exception: Exception | None) -> bool:
        """Whether an exception or a result counts as a failure."""
        return exception is not None or is_failed_result(result)


def _ours() -> Contender:
    # This import exports every breaker of the process, as in the running service.
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
        # Its ``with`` block and ``call_async`` never refuse a call; only the decorator does.
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
        # The factory caches breakers by name and returns the same one again.
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
        # Its decorator and call do not await, so asyncio code has to use a plain ``with``.
        forms=lambda breaker: Forms(sync_block=breaker.calling),
    )


def _pyresilience() -> Contender:
    library = import_module("pyresilience")

    def with_rules(_name: str, rules: Rules) -> Any | None:
        if rules.window_seconds or rules.failed_results:
            return None
        # Slow calls are only judged in a window, as a share of its calls.
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
        # The breaker itself is created when a function is decorated.
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
        # It opens on a failure rate and not after failures in a row. Requiring that many calls is
        # the nearest setting.
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
        # Like interlock-cb, it opens only on a failure rate.
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
    """Return ours, the floor and the installed rivals.

    Returns:
        The contenders with ours first and the floor second, and the names of missing rivals.
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
    """Run a coroutine that never suspends, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        returned: T = stop.value
        return returned
    coroutine.close()
    message = "the coroutine suspended, so it has no result yet"
    raise RuntimeError(message)
