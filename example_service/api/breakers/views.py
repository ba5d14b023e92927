"""Models of circuit breakers for responses and the OpenAPI document."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from example_service.infra.fleet.record import Record
from example_service.infra.resilience import CircuitState, circuit_breaker_registry
from example_service.infra.resilience.rules.states import Mode
from example_service.infra.resilience.validation import LONGEST_REASON

Time: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A UTC time in ISO 8601 format."""


class StandingMode(BaseModel):
    """A mode that an operator has set for a name; it also applies to future breakers."""

    name: Mode
    reason: str
    ends_in: float | None = Field(description="Seconds until it ends; null for not before a reset.")


class BreakerMode(StandingMode):
    """The current mode of a breaker."""

    would_have_rejected: int = Field(description="Calls that shadow mode has let through so far.")


class WindowMetrics(BaseModel):
    """The recent results of a breaker with the rule on their share of failures."""

    failure_rate: float = Field(description="Share of failures, from 0 to 1; 0 unless closed.")
    calls: int = Field(description="Calls in the window; 0 unless closed.")
    threshold: float = Field(description="The share that opens the circuit.")


class BreakerMetrics(BaseModel):
    """The metrics of one breaker, or the sum of several with the same name."""

    state: CircuitState
    failure_count: int = Field(description="Failures in a row.")
    success_count: int = Field(description="Successes so far while half-open, else 0.")
    total_failures: int = Field(description="Since the start or the last reset, as all totals.")
    total_successes: int
    total_rejections: int
    last_failure_time: Time | None
    failure_rate: float = Field(description="Share of failures in all calls, from 0 to 1.")
    retry_after: float | None = Field(
        description="Seconds until a call may be admitted; null when forced open without an end."
    )
    window: WindowMetrics | None = Field(
        None, description="There only with the rule on the failure rate."
    )
    opened_count: int
    in_flight: int = Field(description="Calls admitted that have not ended.")
    reason: str | None = Field(
        None, description="What opened the circuit; there only while it is not closed."
    )
    verdict: Literal["own", "fleet"] | None = Field(
        None,
        description="Whether the circuit follows the fleet; there only while it is not closed.",
    )
    opened_by: str | None = Field(
        None, description="The process that opened it first; there only with the fleet's verdict."
    )
    mode: BreakerMode | None = Field(None, description="There only while one is set by hand.")


class FleetStatus(BaseModel):
    """How this process takes part in the fleet."""

    connected: bool = Field(
        description="Whether the circuits are shared now; otherwise each process works on its own."
    )
    processes: int = Field(description="Processes that act as one circuit, this one included.")


class Transition(BaseModel):
    """A change of a circuit's state."""

    at: Time = Field(description="When it was noticed.")
    worker: int = Field(description="Process id of the worker in which it was.")
    breaker_name: str
    from_state: CircuitState
    to_state: CircuitState
    reason: str = Field(description="What led to it.")
    wait_seconds: float | None = Field(
        description="Seconds until a probe may be admitted, where it opened; null for no end."
    )
    failure_count: int = Field(description="Failures in a row that led to it.")
    rejections: int = Field(description="Calls refused since the circuit was last closed.")


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
            reason=_text(change.reason)[:LONGEST_REASON],
            wait_seconds=change.wait_seconds,
            failure_count=change.failure_count,
            rejections=change.rejections,
        )
        for at, change in circuit_breaker_registry.recent_transitions()
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
        fit["reason"] = _text(fit["reason"])[:LONGEST_REASON]
    if "mode" in fit:
        fit["mode"] = {**fit["mode"], "reason": _text(fit["mode"]["reason"])[:LONGEST_REASON]}
    return fit


def _text(text: str) -> str:
    """Escape lone surrogates, which JSON in UTF-8 cannot represent."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
