"""Circuit breakers: stop calling what fails, and find out by itself when it works again."""

from example_service.infra.resilience.circuit_breaker import CircuitBreaker
from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitListener,
    FailureListener,
    RejectionListener,
    StateChanged,
    StateChangeListener,
    SuccessListener,
)
from example_service.infra.resilience.exceptions import CircuitOpenError
from example_service.infra.resilience.registry import (
    CircuitBreakerRegistry,
    CircuitSnapshot,
    NamedMode,
    circuit_breaker_registry,
)
from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.circuit_state import CircuitState, Mode
from example_service.infra.resilience.rules.failure_rate import FailureRate

__all__ = [
    "Backoff",
    "CallFailed",
    "CallRejected",
    "CallSucceeded",
    "CircuitBreaker",
    "CircuitBreakerRegistry",
    "CircuitListener",
    "CircuitOpenError",
    "CircuitSnapshot",
    "CircuitState",
    "FailureListener",
    "FailureRate",
    "Mode",
    "NamedMode",
    "RejectionListener",
    "StateChangeListener",
    "StateChanged",
    "SuccessListener",
    "circuit_breaker_registry",
]
