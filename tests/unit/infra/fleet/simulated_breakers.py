"""Breakers with those rules of the real ones that concern the fleet.

A real breaker needs ten times as much memory, and a simulation may need ten million.
"""

# ruff: noqa: ARG002 - A fake takes the same arguments as the part that it replaces.

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.participant import FollowClose, FollowOpen, FollowOrder, Rules

if TYPE_CHECKING:
    from example_service.infra.fleet.member import Member

RULES = Rules(recovery_timeout=5.0, success_threshold=2, half_open_max_calls=3, probe_timeout=2.0)
FAILURE_THRESHOLD = 3


class Breaker:
    """The state of one circuit in one process.

    Attributes:
        period: How many periods it has begun. An outcome of a former period counts no more.
    """

    __slots__ = (
        "failures",
        "gate",
        "is_disabled",
        "period",
        "probes",
        "reopenings",
        "state",
        "successes",
        "until",
    )

    def __init__(self) -> None:
        self.gate: LeaseGate | None = None
        self.state = "closed"
        self.until = 0.0
        self.is_disabled = False
        self.failures = self.successes = self.reopenings = self.period = self.probes = 0

    def begin(self, state: str, until: float = 0.0) -> None:
        """Begin a period."""
        self.state, self.until = state, until
        self.period += 1
        self.failures = self.successes = self.probes = 0
        if state == "closed":
            self.reopenings = 0

    def admits(self, at: float) -> bool:
        """Whether a call may run; if so, it does."""
        if self.state == "open":
            if at < self.until:
                return False
            if self.gate is not None and not self.gate.can_probe():
                self.gate.request_probe()
                return False
            self.begin("half_open")
        if self.state == "closed":
            return True
        if self.probes >= RULES.half_open_max_calls:
            return False
        if self.gate is not None and not self.gate.take_probe():
            self.gate.request_probe()
            return False
        self.probes += 1
        return True


class Breakers:
    """The breakers of one process.

    Args:
        clock: A monotonic clock, in seconds.

    Attributes:
        member: The member to which they report.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.member: Member | None = None
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def __getitem__(self, name: str) -> Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker()
        return breaker

    # What the member calls.

    def rules(self, name: str) -> Rules:
        """See `Breakers`."""
        return RULES

    def attach(self, name: str, gate: LeaseGate) -> None:
        """See `Breakers`."""
        self[name].gate = gate

    def detach(self, name: str) -> None:
        """See `Breakers`."""
        self[name].gate = None

    def open(self, name: str, instruction: FollowOpen) -> None:
        """See `Breakers`."""
        self[name].reopenings = instruction.reopenings
        self.begin(name, "open", self._clock() + instruction.seconds)

    def close(self, name: str, instruction: FollowClose) -> None:
        """See `Breakers`."""
        if self[name].state != "closed":
            self.begin(name, "closed")

    def apply_order(self, name: str, instruction: FollowOrder) -> None:
        """See `Breakers`."""
        self[name].is_disabled = instruction.mode == "disabled"
        seconds = math.inf if instruction.seconds is None else instruction.seconds
        if instruction.mode == "forced_open":
            self.begin(name, "open", self._clock() + seconds)
        else:
            self.begin(name, "closed")

    # What the process calls.

    def begin(self, name: str, state: str, until: float = 0.0) -> None:
        """Begin a period of a circuit."""
        self[name].begin(state, until)

    def ended(self, name: str, period: int, *, failed: bool) -> None:
        """Record the outcome of a call that was admitted in `period`."""
        breaker = self[name]
        if period != breaker.period or breaker.is_disabled:
            return
        if breaker.state == "half_open":
            self._probe_ended(name, breaker, failed=failed)
            return
        breaker.failures = breaker.failures + 1 if failed else 0
        if breaker.failures >= FAILURE_THRESHOLD:
            self._open(name, "failures in a row")

    def _probe_ended(self, name: str, breaker: Breaker, *, failed: bool) -> None:
        breaker.probes -= 1
        if failed:
            breaker.reopenings += 1
            self._open(name, "a probe failed")
            return
        if breaker.gate is not None:
            breaker.gate.probe_ended(succeeded=True)
        breaker.successes += 1
        if breaker.successes >= RULES.success_threshold:
            self.begin(name, "closed")
            assert self.member is not None
            self.member.closed(name)

    def _open(self, name: str, reason: str) -> None:
        reopenings = self[name].reopenings
        wait = RULES.recovery_timeout * min(2**reopenings, 4)
        self.begin(name, "open", self._clock() + wait)
        assert self.member is not None
        self.member.opened(name, wait, reason, reopenings)
