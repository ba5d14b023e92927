"""The connection between the breaker registry of this process and its fleet member."""

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.participant import FollowClose, FollowOpen, FollowOrder, Rules
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitState,
    Mode,
    StateChanged,
)
from example_service.infra.resilience.registry import Registrable

if TYPE_CHECKING:
    from example_service.infra.fleet.member import Member

logger = logging.getLogger(__name__)

# The defaults for a name without a breaker, for example of a client created for each request.
_NO_RULES = Rules(
    recovery_timeout=60.0, success_threshold=2, half_open_max_calls=3, probe_timeout=60.0
)


class ProcessBreakers:
    """The breakers of this process, by name.

    Args:
        registry: The registry that contains them.
    """

    def __init__(self, registry: CircuitBreakerRegistry) -> None:
        self._registry = registry
        self._gates: dict[str, LeaseGate] = {}
        self._member: Member | None = None
        # The name and thread of a state change that follows the fleet: it is not reported back.
        self._following: tuple[str, int] | None = None

    @contextmanager
    def reporting_to(self, member: "Member") -> Iterator[None]:
        """Report the state changes of the breakers to `member` until the end of the block."""
        self._member = member
        self._registry.fleet = self
        try:
            yield
        finally:
            self._registry.fleet = None
            for name in list(self._gates):
                for breaker in self._registry.living(name):
                    breaker.machine.gate = None

    # Called by the registry.

    def join(self, breaker: Registrable) -> None:
        """Attach a new breaker to the gate of its name, and open it if the fleet's circuit is."""
        name = breaker.name
        breaker.machine.gate = self._gates.get(name)
        verdict = None if self._member is None else self._member.verdict(name)
        if verdict is not None:
            breaker.start_open(verdict.reason, verdict.seconds, verdict.reopenings)

    def on_state_change(self, event: StateChanged, /) -> None:
        """Report a state change to the member, unless the fleet caused it."""
        name, member = event.breaker_name, self._member
        if member is None or self._following == (name, threading.get_ident()):
            return
        if event.to_state is CircuitState.CLOSED:
            member.closed(name)
        elif event.to_state is CircuitState.OPEN and not self._is_forced_open(name):
            wait = math.inf if event.wait_seconds is None else event.wait_seconds
            breaker = self._breaker(name)
            reopenings = 0 if breaker is None else breaker.machine.reopenings
            member.opened(name, wait, event.reason, reopenings)

    # Called by the member.

    def rules(self, name: str) -> Rules:
        """See `Breakers`."""
        breaker = self._breaker(name)
        if breaker is None:
            return _NO_RULES
        return Rules(
            breaker.recovery_timeout,
            breaker.success_threshold,
            breaker.half_open_max_calls,
            breaker.probe_timeout,
        )

    def open(self, name: str, instruction: FollowOpen) -> None:
        """See `Breakers`."""
        with self._follow(name):
            for breaker in self._registry.living(name):
                breaker.follow(
                    CircuitState.OPEN,
                    instruction.reason,
                    instruction.seconds,
                    instruction.reopenings,
                )

    def close(self, name: str, instruction: FollowClose) -> None:
        """See `Breakers`."""
        with self._follow(name):
            for breaker in self._registry.living(name):
                breaker.follow(CircuitState.CLOSED, instruction.reason)

    def apply_order(self, name: str, instruction: FollowOrder) -> None:
        """See `Breakers`."""
        with self._follow(name):
            if instruction.mode is None:
                self._registry.reset_sync(name, instruction.reason)
            elif instruction.mode in set(Mode):
                mode = Mode(instruction.mode)
                self._registry.set_mode(name, mode, instruction.reason, instruction.seconds)
            else:
                logger.warning(
                    "This version does not know the mode %r that was set for circuit breaker %r.",
                    instruction.mode,
                    name,
                )

    def attach(self, name: str, gate: LeaseGate) -> None:
        """See `Breakers`."""
        self._gates[name] = gate
        for breaker in self._registry.living(name):
            breaker.machine.gate = gate

    def detach(self, name: str) -> None:
        """See `Breakers`."""
        self._gates.pop(name, None)
        for breaker in self._registry.living(name):
            breaker.machine.gate = None

    @contextmanager
    def _follow(self, name: str) -> Iterator[None]:
        self._following = (name, threading.get_ident())
        try:
            yield
        finally:
            self._following = None

    def _breaker(self, name: str) -> CircuitBreaker | None:
        try:
            return self._registry.get(name)
        except KeyError:
            return None

    def _is_forced_open(self, name: str) -> bool:
        breaker = self._breaker(name)
        mode = None if breaker is None else breaker.machine.mode
        return mode is not None and mode.mode is Mode.FORCED_OPEN
