"""The log lines of a breaker: one for each change of state, at most one a second for rejections."""

import logging

from example_service.infra.resilience.events import StateChanged
from example_service.infra.resilience.rules.records import ManualMode
from example_service.infra.resilience.rules.states import CircuitState

logger = logging.getLogger("example_service.infra.resilience")


def log_state_change(event: StateChanged) -> None:
    """Write the line of one change of state."""
    fields = {
        "breaker": event.breaker_name,
        "from_state": event.from_state.value,
        "to_state": event.to_state.value,
        "reason": event.reason,
    }
    if event.to_state is CircuitState.OPEN:
        wait = event.wait_seconds
        logger.warning(
            "Circuit breaker %r opened: %s; probes admitted %s",
            event.breaker_name,
            event.reason,
            "not before a reset" if wait is None else f"in {wait:.1f} seconds",
            extra=fields | {"wait_seconds": wait, "failure_count": event.failure_count},
        )
    elif event.to_state is CircuitState.HALF_OPEN:
        logger.info(
            "Circuit breaker %r is half-open: the next calls are probes",
            event.breaker_name,
            extra=fields,
        )
    else:
        logger.info(
            "Circuit breaker %r closed: %s; calls rejected meanwhile: %d",
            event.breaker_name,
            event.reason,
            event.rejections,
            extra=fields | {"rejections": event.rejections},
        )


def log_rejections(
    breaker_name: str, state: CircuitState, count: int, retry_after: float | None
) -> None:
    """Write the summary of the calls refused since the last one."""
    logger.info(
        "Circuit breaker %r refuses calls: %d since the last such line",
        breaker_name,
        count,
        extra={
            "breaker": breaker_name,
            "state": state.value,
            "rejections": count,
            "retry_after": retry_after,
        },
    )


def log_mode(breaker_name: str, mode: ManualMode, seconds: float | None) -> None:
    """Write the line of a mode set by hand."""
    logger.warning(
        "Circuit breaker %r set to %s by hand: %s; applies %s",
        breaker_name,
        mode.mode.value,
        mode.reason,
        "until a reset" if seconds is None else f"for {seconds:.1f} seconds",
        extra={
            "breaker": breaker_name,
            "mode": mode.mode.value,
            "reason": mode.reason,
            "seconds": seconds,
        },
    )
