"""The events that a breaker reports to its listeners.

Events are frozen. Listeners are called after the decision, outside the breaker's lock, so a
listener may call the breaker. A listener is any object that has one or more of the four methods
below; a breaker pays only for the methods that its listeners have.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from example_service.infra.resilience.rules.states import CausedBy, CircuitState


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state of a circuit has changed.

    Attributes:
        breaker_name: Name of the breaker.
        from_state: The state before.
        to_state: The state after.
        wait_seconds: Seconds until a probe may be admitted, if the circuit opened; None if it did
            not, or was forced open without an end.
        failure_count: Failures in a row that led to it.
        rejections: Calls refused since the circuit was last closed.
        reason: What led to it: the rule, its numbers and, if the circuit opened, the type names of
            the most recent exceptions.
        caused_by: What changed the state: `"rules"` for the circuit's own rules, `"operator"` for a
            mode or a reset, `"fleet"` for another process of the fleet.
    """

    breaker_name: str
    from_state: CircuitState
    to_state: CircuitState
    wait_seconds: float | None
    failure_count: int
    rejections: int
    reason: str
    caused_by: CausedBy = "rules"


class CallSucceeded(NamedTuple):
    """A guarded call succeeded.

    Attributes:
        breaker_name: Name of the breaker.
        duration_seconds: How long it took.
    """

    breaker_name: str
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A guarded call counted as a failure.

    Attributes:
        breaker_name: Name of the breaker.
        error_type: Type name of the exception; None if the returned value was the failure, or if
            the call is still running past its deadline.
        duration_seconds: How long it took, or has been running.
    """

    breaker_name: str
    error_type: str | None
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class CallRejected:
    """A call was refused.

    Attributes:
        breaker_name: Name of the breaker.
        state: The state in which it was refused: open or half-open.
        retry_after: Seconds until a call may be admitted; None if forced open without an end.
    """

    breaker_name: str
    state: CircuitState
    retry_after: float | None


class StateChangeListener(Protocol):
    """Is called on every state change."""

    def on_state_change(self, event: StateChanged, /) -> None:
        """Called once for each change, in the thread that caused it."""


class SuccessListener(Protocol):
    """Is called on every success."""

    def on_success(self, event: CallSucceeded, /) -> None:
        """Called once for each call that succeeded."""


class FailureListener(Protocol):
    """Is called on every failure."""

    def on_failure(self, event: CallFailed, /) -> None:
        """Called once for each call that counted as a failure."""


class RejectionListener(Protocol):
    """Is called on every refused call."""

    def on_rejection(self, event: CallRejected, /) -> None:
        """Called once for each call that was refused."""


CircuitListener: TypeAlias = (
    StateChangeListener | SuccessListener | FailureListener | RejectionListener
)
Event: TypeAlias = StateChanged | CallSucceeded | CallFailed | CallRejected
