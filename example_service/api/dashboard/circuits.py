"""What the page is sent of one circuit."""

from typing import Any

from example_service.api.breakers.views import BreakerMetrics, StandingMode
from example_service.api.dashboard.history import CircuitHistory, Look
from example_service.infra.resilience import CircuitState, circuit_breaker_registry


def look_of(metrics: BreakerMetrics | None, mode: StandingMode | None) -> Look:
    """What a circuit looks like: its mode if one is set by hand, otherwise its state."""
    if mode is not None:
        return mode.name.value
    return CircuitState.CLOSED.value if metrics is None else metrics.state.value


def circuit_view(
    name: str,
    metrics: BreakerMetrics | None,
    mode: StandingMode | None,
    history: CircuitHistory,
    now: float,
) -> dict[str, Any]:
    """What the page shows of a circuit, except its calls.

    Times are in seconds since 1970 and rates are left to the page, so that the view stays the same
    while nothing happens.

    Args:
        name: Name of the breaker.
        metrics: What it shows; None where there is no breaker now, but perhaps a mode for one.
        mode: The mode that is set.
        history: What it did.
        now: The time of the metrics, in seconds since 1970.
    """
    view: dict[str, Any] = {
        "name": name,
        "look": history.look,
        "since": round(history.since, 1),
        "spared": history.spared,
        "waits": list(history.waits),
        "stays": [(round(at, 1), look) for at, look in history.stays],
        "hasBreaker": metrics is not None,
        "mode": None
        if mode is None
        else {
            "reason": mode.reason,
            "until": history.end_of("mode", mode.ends_in, now),
            "letThrough": getattr(mode, "would_have_rejected", 0),
        },
    }
    if metrics is not None:
        view |= {
            "state": metrics.state.value,
            "reason": metrics.reason,
            "verdict": metrics.verdict,
            "openedBy": metrics.opened_by,
            "until": history.end_of("wait", metrics.retry_after, now),
            "inFlight": metrics.in_flight,
            "failuresInARow": metrics.failure_count,
            "probesSucceeded": metrics.success_count,
            "window": None
            if metrics.window is None
            else {"rate": round(metrics.window.failure_rate, 4), "calls": metrics.window.calls},
            **_rules(name),
        }
    return view


def _rules(name: str) -> dict[str, Any]:
    """The numbers that decide when the circuit opens and closes, as far as this process has it."""
    try:
        breaker = circuit_breaker_registry.get(name)
    except KeyError:
        return {}
    rate = breaker.failure_rate
    return {
        "failureThreshold": breaker.failure_threshold,
        "probesAtOnce": breaker.half_open_max_calls,
        "successesNeeded": breaker.success_threshold,
        "firstWait": breaker.recovery_timeout,
        "rateThreshold": None if rate is None else rate.threshold,
        "minimumCalls": None if rate is None else rate.minimum_calls,
    }
