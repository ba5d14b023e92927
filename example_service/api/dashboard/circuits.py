"""The data of one circuit that is sent to the page."""

from typing import Any

from example_service.api.breakers.views import BreakerMetrics, StandingMode
from example_service.api.dashboard.history import CircuitHistory, Status
from example_service.infra.resilience import CircuitState, circuit_breaker_registry


def status_of(metrics: BreakerMetrics | None, mode: StandingMode | None) -> Status:
    """Return the mode that an operator has set, or the circuit's state if there is none."""
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
    """Return what the page shows of a circuit, except its calls.

    Times are absolute, in seconds since the epoch, and the page computes the rates itself. The view
    therefore only changes when something happens.

    Args:
        name: The name of the breaker.
        metrics: The metrics of the breaker. None if there is only a mode for this name.
        mode: The mode that an operator has set, if any.
        history: The history of the circuit.
        now: The time of the metrics, in seconds since the epoch.
    """
    view: dict[str, Any] = {
        "name": name,
        "status": history.status,
        "since": round(history.since, 1),
        "spared": history.spared,
        "past": None if history.past is None else history.past._asdict(),
        "waits": list(history.waits),
        "periods": [(round(at, 1), status) for at, status in history.periods],
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
    """Return the thresholds of the breaker, or nothing if this process does not have it."""
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
