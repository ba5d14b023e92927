"""The log lines of a breaker: one for each change of state, at most one a second for rejections."""

import logging

from example_service.infra.resilience.circuit_state import CircuitState
from example_service.infra.resilience.events import StateChanged

logger = logging.getLogger("example_service.infra.resilience")


def log_state_change(event: StateChanged, probe_timeout: float | None) -> None:
    """Write the line of one change of state.

    Args:
        event: The change.
        probe_timeout: Seconds that a probe outran, where that is what opened the circuit.
    """
    fields = {
        "breaker": event.breaker_name,
        "from_state": event.from_state.value,
        "to_state": event.to_state.value,
    }
    if event.to_state is CircuitState.OPEN:
        logger.warning(
            "Circuit breaker '%s' opened: %s; probes admitted in %.1f seconds",
            event.breaker_name,
            _evidence(event, probe_timeout),
            event.wait_seconds,
            extra=fields
            | {
                "wait_seconds": event.wait_seconds,
                "failure_count": event.failure_count,
                "error_type": event.error_type,
            },
        )
    elif event.to_state is CircuitState.HALF_OPEN:
        logger.info(
            "Circuit breaker '%s' is half-open: the next calls are probes",
            event.breaker_name,
            extra=fields,
        )
    else:
        logger.info(
            "Circuit breaker '%s' closed: %d calls were rejected meanwhile",
            event.breaker_name,
            event.rejections,
            extra=fields | {"rejections": event.rejections},
        )


def log_rejections(breaker_name: str, state: CircuitState, count: int, retry_after: float) -> None:
    """Write the summary of the calls refused since the last one."""
    logger.info(
        "Circuit breaker '%s' rejected %d calls; next attempt in %.1f seconds",
        breaker_name,
        count,
        retry_after,
        extra={
            "breaker": breaker_name,
            "state": state.value,
            "rejections": count,
            "retry_after": retry_after,
        },
    )


def _evidence(event: StateChanged, probe_timeout: float | None) -> str:
    if probe_timeout is not None:
        return f"a probe did not end within {probe_timeout:g} seconds"
    last = f", the last a {event.error_type}" if event.error_type else ""
    if event.from_state is CircuitState.HALF_OPEN:
        return f"a probe failed{last}"
    if event.failure_count == 0:
        return "set by hand"
    return f"{event.failure_count} failures in a row{last}"
