"""The words for a circuit: its three states, and the modes that an operator can set."""

from enum import StrEnum
from typing import Literal, TypeAlias

CausedBy: TypeAlias = Literal["rules", "operator", "fleet"]
"""What changed a state: the circuit's own rules, an operator's mode or reset, or the fleet."""


class CircuitState(StrEnum):
    """What a circuit does with calls."""

    CLOSED = "closed"
    """Every call runs."""
    OPEN = "open"
    """No call runs."""
    HALF_OPEN = "half_open"
    """A few calls run, to find out whether the dependency has recovered."""


class Mode(StrEnum):
    """An operator's decision, which overrides the rules."""

    FORCED_OPEN = "forced_open"
    """Refuse every call."""
    DISABLED = "disabled"
    """Run every call, and never open."""
    SHADOW = "shadow"
    """Apply the rules, but run the calls that they refuse."""
