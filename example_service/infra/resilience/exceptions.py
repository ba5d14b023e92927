"""The errors that the package raises.

Exception
└── CircuitOpenError    a call was refused; the guarded function was not called
"""

from example_service.infra.resilience.rules.states import CircuitState

MAX_CHAIN = 10
"""How many links of a chain of causes are followed."""

# The number of arguments with which a breaker creates the error.
_VALUES = 4


class CircuitOpenError(Exception):
    """A circuit breaker refused a call, which did not run.

    A breaker raises it with its name, its state, the seconds to wait and the reason. Your own code
    may raise it with only a message.

    Attributes:
        breaker_name: Name of the breaker that refused; None if raised with only a message.
        state: The state in which it refused: open, or half-open with every probe taken; None if
            raised with only a message.
        retry_after: Seconds until a call may be admitted; 0.0 if half-open with every probe taken;
            None if unknown.
        reason: What opened the circuit; None if raised with only a message.
    """

    # Refusing is the hot path of an outage. The values are in `args`, which needs no __init__,
    # supports pickle and copy, and creates the message only when it is read.

    @property
    def breaker_name(self) -> str | None:
        """Name of the breaker that refused."""
        return self.args[0] if len(self.args) == _VALUES else None

    @property
    def state(self) -> CircuitState | None:
        """The state in which it refused."""
        return self.args[1] if len(self.args) == _VALUES else None

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be admitted."""
        return self.args[2] if len(self.args) == _VALUES else None

    @property
    def reason(self) -> str | None:
        """What opened the circuit."""
        return self.args[3] if len(self.args) == _VALUES else None

    def __str__(self) -> str:
        """The given message, or one made from the attributes."""
        if self.breaker_name is None:
            return super().__str__()
        if self.state is CircuitState.HALF_OPEN:
            return f"Circuit breaker {self.breaker_name!r} half-open call limit reached"
        message = f"Circuit breaker {self.breaker_name!r} is open"
        if self.retry_after is None:
            return message
        return f"{message}, retry after {self.retry_after:.1f} seconds"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"
