"""Circuit breakers: stop calling what fails, and notice when it works again."""

from example_service.infra.resilience.circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
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
from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.metrics import CircuitSnapshot
from example_service.infra.resilience.named_modes import NamedMode, Order
from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.rules.states import CircuitState, Mode

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
    "Guard",
    "Mode",
    "NamedMode",
    "Order",
    "RejectionListener",
    "StateChangeListener",
    "StateChanged",
    "SuccessListener",
    "circuit_breaker_registry",
]
