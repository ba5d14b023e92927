"""Records circuit breakers on spans."""

from contextlib import suppress
from typing import Final

from opentelemetry.trace import get_current_span

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreakerRegistry,
)

REJECTED: Final = "circuit_breaker.rejected"


class SpanListener:
    """A listener that records guarded calls on the current span.

    The names of the attributes include the name of the circuit, because a request may pass several:
    `circuit_breaker.payment.state` and `circuit_breaker.payment.outcome`, which is `success`,
    `failure` or `rejected`. They describe the last call through that circuit. A refused call also
    adds an event.

    Args:
        registry: The registry of the circuits.
    """

    def __init__(self, registry: CircuitBreakerRegistry) -> None:
        self._registry = registry

    def on_success(self, event: CallSucceeded, /) -> None:
        """Record a success."""
        self._record_outcome(event.breaker_name, "success")

    def on_failure(self, event: CallFailed, /) -> None:
        """Record a failure and the state after it."""
        self._record_outcome(event.breaker_name, "failure")

    def on_rejection(self, event: CallRejected, /) -> None:
        """Record a refused call, with the seconds until the next call may be admitted."""
        span = get_current_span()
        if not span.is_recording():
            return
        span.set_attribute(f"circuit_breaker.{event.breaker_name}.outcome", "rejected")
        span.set_attribute(f"circuit_breaker.{event.breaker_name}.state", event.state.value)
        attributes: dict[str, str | float] = {
            "circuit_breaker.name": event.breaker_name,
            "circuit_breaker.state": event.state.value,
        }
        if event.retry_after is not None:
            attributes["circuit_breaker.retry_after"] = event.retry_after
        span.add_event(REJECTED, attributes)

    def _record_outcome(self, name: str, outcome: str) -> None:
        span = get_current_span()
        if not span.is_recording():
            return
        span.set_attribute(f"circuit_breaker.{name}.outcome", outcome)
        # A breaker may be removed from the registry before its last call ends.
        with suppress(KeyError):
            span.set_attribute(
                f"circuit_breaker.{name}.state", self._registry.get(name).state.value
            )
