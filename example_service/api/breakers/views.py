"""Models of circuit breakers for responses and the OpenAPI document."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from example_service.infra.fleet.record import Record
from example_service.infra.resilience import CircuitState, Order, circuit_breaker_registry
from example_service.infra.resilience.rules.states import CausedBy, Mode
from example_service.infra.resilience.validation import MAX_REASON_LENGTH

Time: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A UTC time in ISO 8601 format."""


class StandingMode(BaseModel):
    """A mode that an operator has set for a name. It also applies to future breakers."""

    name: Mode
    reason: str
    ends_in: float | None = Field(
        description="Seconds until it ends; null if only a reset ends it."
    )


class BreakerMode(StandingMode):
    """The current mode of a breaker."""

    would_have_rejected: int = Field(
        description="Calls that shadow mode has admitted although the circuit would refuse them."
    )


class WindowMetrics(BaseModel):
    """The window of a breaker with a failure rate."""

    failure_rate: float = Field(
        description="Share of failures in the window, 0 to 1; 0 unless the circuit is closed."
    )
    calls: int = Field(description="Calls in the window; 0 unless the circuit is closed.")
    threshold: float = Field(description="Failure rate that opens the circuit.")


class BreakerMetrics(BaseModel):
    """The metrics of one breaker, or the sum of several with the same name."""

    state: CircuitState
    failure_count: int = Field(description="Failures in a row.")
    success_count: int = Field(description="Successful probes while half-open, otherwise 0.")
    total_failures: int = Field(
        description="Failures since the start or the last reset, like all totals."
    )
    total_successes: int
    total_rejections: int
    last_failure_time: Time | None
    failure_rate: float = Field(description="Share of failures in all calls, 0 to 1.")
    retry_after: float | None = Field(
        description="Seconds until a call may be admitted; null if forced open without an end."
    )
    window: WindowMetrics | None = Field(
        None, description="Only present if the breaker has a failure rate."
    )
    opened_count: int
    in_flight: int = Field(description="Admitted calls that have not ended.")
    reason: str | None = Field(
        None, description="Why the circuit opened; only present while it is not closed."
    )
    verdict: Literal["own", "fleet"] | None = Field(
        None,
        description="Whether this process or the fleet opened the circuit; only present while it "
        "is not closed.",
    )
    opened_by: str | None = Field(
        None, description="The process that opened it first; only present if the fleet opened it."
    )
    mode: BreakerMode | None = Field(
        None, description="The mode that an operator has set; only present if there is one."
    )


class FleetStatus(BaseModel):
    """The connection of this process to the fleet."""

    connected: bool = Field(
        description="Whether the process shares its circuits now; otherwise it decides alone."
    )
    processes: int = Field(description="Processes that share their circuits, including this one.")


class Transition(BaseModel):
    """A change of a circuit's state."""

    at: Time = Field(description="When the change was noticed.")
    worker: int = Field(description="Process id of the worker with the breaker.")
    breaker_name: str
    from_state: CircuitState
    to_state: CircuitState
    reason: str = Field(description="Why the state changed.")
    wait_seconds: float | None = Field(
        description="If the circuit opened, seconds until a probe may be admitted; null otherwise, "
        "and if it stays open without an end."
    )
    failure_count: int = Field(description="Failures in a row before the change.")
    rejections: int = Field(description="Calls refused since the circuit was last closed.")
    caused_by: CausedBy = Field(
        description="What changed the state: the circuit's own rules, an operator's mode or reset, "
        "or another process of the fleet."
    )


def breaker_metrics() -> dict[str, BreakerMetrics]:
    """Return the metrics of every breaker of this process, by name.

    Optional fields without a value are unset. Exclude unset fields from the response.
    """
    return {
        _text(name): BreakerMetrics.model_validate(_with_fit_reasons(shown))
        for name, shown in circuit_breaker_registry.get_all_metrics().items()
    }


def add_verdicts(breakers: Mapping[str, BreakerMetrics], records: Mapping[str, Record]) -> None:
    """Set `verdict` and `opened_by` of every breaker that is not closed.

    Args:
        breakers: The metrics returned by `breaker_metrics`.
        records: The fleet's records, by name.
    """
    by_name = {_text(name): record for name, record in records.items()}
    for name, shown in breakers.items():
        if shown.state is CircuitState.CLOSED:
            continue
        record = by_name.get(name)
        if record is None or not record.is_open:
            shown.verdict = "own"
        else:
            shown.verdict, shown.opened_by = "fleet", _text(record.opener)


def recent_transitions() -> list[Transition]:
    """Return the most recent changes of state in this process, newest first."""
    return [
        Transition(
            at=at.isoformat(),
            worker=os.getpid(),
            breaker_name=_text(change.breaker_name),
            from_state=change.from_state,
            to_state=change.to_state,
            reason=_text(change.reason)[:MAX_REASON_LENGTH],
            wait_seconds=change.wait_seconds,
            failure_count=change.failure_count,
            rejections=change.rejections,
            caused_by=change.caused_by,
        )
        for at, change in circuit_breaker_registry.recent_transitions()
    ]


def recent_orders() -> list[Order]:
    """Return the most recent orders of operators that this process has carried out."""
    return [
        order._replace(name=_text(order.name), reason=_text(order.reason))
        for order in circuit_breaker_registry.recent_orders()
    ]


def standing_modes() -> dict[str, StandingMode]:
    """Return the modes that operators have set, by name, as far as this process has seen them."""
    return {
        _text(name): StandingMode(name=mode.mode, reason=mode.reason, ends_in=mode.seconds)
        for name, mode in circuit_breaker_registry.modes().items()
    }


def _with_fit_reasons(metrics: dict[str, Any]) -> dict[str, Any]:
    fit = dict(metrics)
    if isinstance(fit.get("reason"), str):
        fit["reason"] = _text(fit["reason"])[:MAX_REASON_LENGTH]
    if "mode" in fit:
        fit["mode"] = {**fit["mode"], "reason": _text(fit["mode"]["reason"])[:MAX_REASON_LENGTH]}
    return fit


def _text(text: str) -> str:
    """Escape lone surrogates, which JSON in UTF-8 cannot represent."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
