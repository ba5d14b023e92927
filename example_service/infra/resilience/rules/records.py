"""What the rules report: counts, changes of state, overdue calls, and the current mode."""

from dataclasses import dataclass
from typing import NamedTuple

from example_service.infra.resilience.rules.states import CausedBy, CircuitState, Mode


class Totals(NamedTuple):
    """Lifetime counts of one circuit; they never go down.

    Attributes:
        failures: Calls that failed.
        successes: Calls that succeeded.
        rejections: Calls that were refused.
        openings: How often the circuit opened.
        shadow_rejections: Calls that the rules refused, but shadow mode ran.
    """

    failures: int
    successes: int
    rejections: int
    openings: int
    shadow_rejections: int


NO_TOTALS = Totals(failures=0, successes=0, rejections=0, openings=0, shadow_rejections=0)


@dataclass(slots=True)
class ManualMode:
    """The mode that an operator has set.

    Attributes:
        mode: Which mode.
        reason: Why, in the operator's words.
        until: When it ends, in seconds on the clock; None means at the next reset.
        would_have_rejected: Calls that the rules refused, but shadow mode ran.
    """

    mode: Mode
    reason: str
    until: float | None
    would_have_rejected: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state. Listeners receive it as `StateChanged`.

    Attributes:
        from_state: The state before.
        to_state: The state after.
        wait_seconds: Seconds until a probe may run, if `to_state` is open.
        failure_count: Failures in a row before it.
        cause: Why, for logs and listeners: the rule and its numbers.
        rejections: Calls refused since the circuit was last closed.
        caused_by: What changed the state.
    """

    from_state: CircuitState
    to_state: CircuitState
    wait_seconds: float | None
    failure_count: int
    cause: str
    rejections: int
    caused_by: CausedBy = "rules"


class Overdue(NamedTuple):
    """A running call passed its deadline and was counted as a failure.

    Attributes:
        deadline: The deadline, in seconds on the clock.
        seconds: How long the call had been running at its deadline.
    """

    deadline: float
    seconds: float
