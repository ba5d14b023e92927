"""The metrics of breakers: snapshots, the dictionary of `get_metrics`, and their sums."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine
from example_service.infra.resilience.rules.phases import Closed, HalfOpen
from example_service.infra.resilience.rules.records import ManualMode
from example_service.infra.resilience.rules.states import CircuitState, Mode

StateChanges: TypeAlias = Mapping[tuple[CircuitState, CircuitState], int]

STATE_VALUES: Final = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
"""The values of the metric `circuit_breaker_state`. Higher is worse."""


class WindowCounts(NamedTuple):
    """The recent outcomes that the failure rate rule counts.

    Attributes:
        failures: Failures in the window; 0 unless closed.
        calls: Calls in the window; 0 unless closed.
        threshold: The share of failures that opens the circuit.
    """

    failures: int
    calls: int
    threshold: float

    @property
    def failure_rate(self) -> float:
        """Share of failures, 0.0 to 1.0."""
        return self.failures / self.calls if self.calls else 0.0


class CircuitSnapshot(NamedTuple):
    """The sum of all breakers of one name, for monitoring.

    Attributes:
        name: The breakers' name.
        state: Their worst state: open before half-open before closed.
        failures: Lifetime failures, including those of breakers that were freed; never goes down.
        successes: Lifetime successes, in the same way.
        rejections: Lifetime refused calls, in the same way.
        in_flight: Calls that are running.
        state_changes: How often each change from one state to another happened.
        mode: The mode that an operator has set on one of them, or None.
        would_have_rejected: Calls that the rules refused, but the current shadow mode ran.
        shadow_rejections: Lifetime count of such calls; never goes down.
        window: The window with the highest failure rate, if they have a `failure_rate`; else None.
    """

    name: str
    state: CircuitState
    failures: int
    successes: int
    rejections: int
    in_flight: int
    state_changes: StateChanges
    mode: Mode | None = None
    would_have_rejected: int = 0
    shadow_rejections: int = 0
    window: WindowCounts | None = None

    def plus(self, other: "CircuitSnapshot") -> "CircuitSnapshot":
        """The sum of this snapshot and another one of the same name."""
        state_changes = dict(self.state_changes)
        for change, count in other.state_changes.items():
            state_changes[change] = state_changes.get(change, 0) + count
        windows = [snapshot.window for snapshot in (self, other) if snapshot.window is not None]
        return CircuitSnapshot(
            self.name,
            max(self.state, other.state, key=STATE_VALUES.__getitem__),
            self.failures + other.failures,
            self.successes + other.successes,
            self.rejections + other.rejections,
            self.in_flight + other.in_flight,
            state_changes,
            self.mode or other.mode,
            self.would_have_rejected + other.would_have_rejected,
            self.shadow_rejections + other.shadow_rejections,
            max(windows, key=lambda window: (window.failure_rate, window.calls), default=None),
        )

    def lifetime_counts(self) -> "CircuitSnapshot":
        """The lifetime counts alone, to keep when the breaker is freed."""
        return self._replace(
            state=CircuitState.CLOSED, in_flight=0, mode=None, would_have_rejected=0, window=None
        )


def snapshot_of(name: str, machine: CircuitStateMachine, now: float) -> CircuitSnapshot:
    """Read one circuit. Requires its lock."""
    totals, mode = machine.totals(), machine.mode
    return CircuitSnapshot(
        name,
        machine.phase.state,
        totals.failures,
        totals.successes,
        totals.rejections,
        machine.in_flight(totals),
        machine.state_changes or {},
        None if mode is None else mode.mode,
        0 if mode is None else mode.would_have_rejected,
        totals.shadow_rejections,
        window_of(machine, now),
    )


def window_of(machine: CircuitStateMachine, now: float) -> WindowCounts | None:
    """Read the window of a circuit; None without `failure_rate`. Requires the lock."""
    if machine.failure_rate is None:
        return None
    failures, calls = machine.window_counts(now) or (0, 0)
    return WindowCounts(failures, calls, machine.failure_rate.threshold)


def metrics_of(
    machine: CircuitStateMachine,
    now: float,
    last_failure: datetime | None,
    reason: str | None,
) -> dict[str, Any]:
    """Make the dictionary of `CircuitBreaker.get_metrics`. Requires the lock.

    Args:
        machine: The rules.
        now: Seconds on the breaker's clock.
        last_failure: Wall time of the last failure, or None.
        reason: What opened the circuit, or None.
    """
    totals, forgotten, phase = machine.totals(), machine.totals_at_reset, machine.phase
    failures = totals.failures - forgotten.failures
    successes = totals.successes - forgotten.successes
    metrics: dict[str, Any] = {
        "state": phase.state.value,
        "failure_count": machine.failures_in_a_row(),
        "success_count": phase.successes if isinstance(phase, HalfOpen) else 0,
        "total_failures": failures,
        "total_successes": successes,
        "total_rejections": totals.rejections - forgotten.rejections,
        "last_failure_time": last_failure.isoformat() if last_failure else None,
        "failure_rate": failures / (failures + successes) if failures else 0.0,
        "retry_after": machine.retry_after(now),
        "opened_count": totals.openings - forgotten.openings,
        "in_flight": machine.in_flight(totals),
    }
    if (window := window_of(machine, now)) is not None:
        metrics["window"] = {
            "failure_rate": window.failure_rate,
            "calls": window.calls,
            "threshold": window.threshold,
        }
    if not isinstance(phase, Closed):
        metrics["reason"] = reason
    if machine.mode is not None:
        metrics["mode"] = _mode_metrics(machine.mode, now)
    return metrics


def _mode_metrics(mode: ManualMode, now: float) -> dict[str, Any]:
    return {
        "name": mode.mode.value,
        "reason": mode.reason,
        "ends_in": None if mode.until is None else mode.until - now,
        "would_have_rejected": mode.would_have_rejected,
    }


def add_up_metrics(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the metrics of several breakers of one name; of states and waits, take the worst."""
    if len(metrics) == 1:
        return metrics[0]
    worst = max(metrics, key=_severity)
    total = {
        key: sum(each[key] for each in metrics)
        for key in (
            "total_failures",
            "total_successes",
            "total_rejections",
            "opened_count",
            "in_flight",
        )
    }
    ended = total["total_failures"] + total["total_successes"]
    failed_at = [each["last_failure_time"] for each in metrics if each["last_failure_time"]]
    added_up = {
        **worst,
        **total,
        "last_failure_time": max(failed_at, default=None),
        "failure_rate": total["total_failures"] / ended if ended else 0.0,
    }
    if windows := [each["window"] for each in metrics if each.get("window") is not None]:
        added_up["window"] = max(
            windows, key=lambda window: (window["failure_rate"], window["calls"])
        )
    if modes := [each["mode"] for each in metrics if "mode" in each]:
        # A mode on any of them must be visible, also if another one is in a worse state.
        run = sum(mode["would_have_rejected"] for mode in modes)
        added_up["mode"] = {**worst.get("mode", modes[0]), "would_have_rejected": run}
    return added_up


def _severity(metrics: dict[str, Any]) -> tuple[int, float]:
    """Larger is worse: first by the state, then by the wait, which may have no end."""
    wait = metrics["retry_after"]
    return STATE_VALUES[CircuitState(metrics["state"])], math.inf if wait is None else wait
