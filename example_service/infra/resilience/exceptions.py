"""What the package raises.

Exception
└── CircuitOpenError    a call was refused; the guarded function was not called
"""

from typing import Any

from example_service.infra.resilience.circuit_state import CircuitState


class CircuitOpenError(Exception):
    """A circuit breaker refused a call, which therefore never ran.

    Raised by a breaker it says which one and for how long. It can also be raised with a message
    alone, by code that refuses for itself.

    Attributes:
        breaker_name: Name of the breaker that refused; None when raised with a message alone.
        state: The state in which it refused: open, or half-open with every probe taken.
        retry_after: Seconds until a call may be admitted; 0.0 when half-open and merely full;
            None when not known.
    """

    breaker_name: str | None = None
    state: CircuitState | None = None
    retry_after: float | None = None

    # No __init__: refusing is the hot path of an outage, so the breaker sets the attributes and
    # the message is made only when somebody reads it.

    def __str__(self) -> str:
        """The given message, or one made from the attributes."""
        if self.args or self.breaker_name is None:
            return super().__str__()
        if self.state is CircuitState.HALF_OPEN:
            return f"Circuit breaker '{self.breaker_name}' half-open call limit reached"
        message = f"Circuit breaker '{self.breaker_name}' is open"
        if self.retry_after is None:
            return message
        return f"{message}, retry after {self.retry_after:.1f} seconds"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__ or None


def rejection(breaker_name: str, state: CircuitState, retry_after: float) -> CircuitOpenError:
    """The error with which a breaker refuses a call."""
    error = CircuitOpenError()
    error.breaker_name = breaker_name
    error.state = state
    error.retry_after = retry_after
    return error
