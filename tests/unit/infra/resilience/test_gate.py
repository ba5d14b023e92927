"""A gate between OPEN and HALF_OPEN, and breakers that follow other processes."""

import pytest

from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    StateChanged,
)
from example_service.infra.resilience.rules.gate import Gate
from example_service.infra.resilience.testing import FakeClock


class FakeGate(Gate):
    """A gate that the test opens.

    Attributes:
        available: The number of probes that may start.
        requested: How often refused calls have requested a probe.
        outcomes: The reported outcomes of probes.
    """

    def __init__(self) -> None:
        self.available = 0
        self.requested = 0
        self.outcomes: list[bool | None] = []

    def can_probe(self) -> bool:
        """See `Gate`."""
        return self.available > 0

    def take_probe(self) -> bool:
        """See `Gate`."""
        if self.available == 0:
            return False
        self.available -= 1
        return True

    def request_probe(self) -> None:
        """See `Gate`."""
        self.requested += 1

    def probe_ended(self, *, succeeded: bool | None) -> None:
        """See `Gate`."""
        self.outcomes.append(succeeded)


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


@pytest.fixture
def gate() -> FakeGate:
    """A closed gate."""
    return FakeGate()


@pytest.fixture
def breaker(clock: FakeClock, gate: FakeGate) -> CircuitBreaker:
    """A breaker behind the gate."""
    breaker = CircuitBreaker(
        "shop",
        failure_threshold=1,
        recovery_timeout=10.0,
        success_threshold=2,
        backoff=Backoff(jitter=0.0),
        registry=None,
        clock=clock,
    )
    breaker.machine.gate = gate
    return breaker


def fail(breaker: CircuitBreaker) -> None:
    """Make a call that fails."""
    with pytest.raises(ZeroDivisionError):
        breaker.call_sync(lambda: 1 / 0)


def refused(breaker: CircuitBreaker) -> None:
    """Make a call that is refused."""
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(str)


def test_a_closed_circuit_never_asks(breaker: CircuitBreaker, gate: FakeGate) -> None:
    """Its calls cost the same as without a gate."""
    breaker.call_sync(str)
    breaker.release(breaker.acquire())
    fail(breaker)
    assert (gate.requested, gate.outcomes) == (0, [])


def test_the_circuit_stays_open_until_the_gate_opens(
    breaker: CircuitBreaker, gate: FakeGate, clock: FakeClock
) -> None:
    """After the wait, each refused call asks for a probe; during the wait, none does."""
    fail(breaker)
    clock.advance(9.0)
    refused(breaker)
    assert gate.requested == 0
    clock.advance(100.0)
    refused(breaker)
    assert breaker.is_open
    assert gate.requested == 1

    gate.available = 1
    assert breaker.is_half_open
    breaker.call_sync(str)
    assert gate.outcomes == [True]


def test_each_probe_uses_one_permission(
    breaker: CircuitBreaker, gate: FakeGate, clock: FakeClock
) -> None:
    """Without a right, the call is refused and asks for one."""
    fail(breaker)
    clock.advance(10.0)
    gate.available = 1
    breaker.call_sync(str)
    refused(breaker)
    assert gate.requested == 1
    gate.available = 1
    breaker.call_sync(str)
    assert breaker.is_closed
    assert gate.outcomes == [True, True]


def test_a_probe_without_a_verdict_is_reported(
    breaker: CircuitBreaker, gate: FakeGate, clock: FakeClock
) -> None:
    """Another probe can then use its right."""
    fail(breaker)
    clock.advance(10.0)
    gate.available = 1
    permit = breaker.acquire()
    breaker.release(permit)
    assert gate.outcomes == [None]


def test_a_late_outcome_is_not_reported(
    breaker: CircuitBreaker, gate: FakeGate, clock: FakeClock
) -> None:
    """Its right became void when the circuit opened again."""
    fail(breaker)
    clock.advance(10.0)
    gate.available = 3
    first, second, third = (breaker.acquire() for _ in range(3))
    breaker.fail(first)
    breaker.succeed(second)
    breaker.release(third)
    assert gate.outcomes == []
    assert breaker.is_open


def test_in_shadow_mode_a_call_asks_and_runs(
    breaker: CircuitBreaker, gate: FakeGate, clock: FakeClock
) -> None:
    """Shadow mode refuses nothing."""
    breaker.shadow("trying")
    fail(breaker)
    clock.advance(10.0)
    breaker.call_sync(str)
    assert gate.requested == 1
    assert breaker.is_open


def test_it_opens_with_the_others(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """It uses the wait, the reason and the backoff of the others."""
    breaker.follow(CircuitState.OPEN, "5 failures in a row (opened by web-1)", 7.0, 2)
    with pytest.raises(CircuitOpenError) as refusal:
        breaker.call_sync(str)
    assert refusal.value.retry_after == 7.0
    assert refusal.value.reason == "5 failures in a row (opened by web-1)"

    breaker.machine.gate = None
    clock.advance(7.0)
    fail(breaker)
    assert breaker.get_metrics()["retry_after"] == 10.0 * min(2.0**3, 5.0)


def test_the_reason_of_the_others_is_not_mixed_with_its_own_failures() -> None:
    """Its own failures did not open the circuit."""
    breaker = CircuitBreaker("shop", failure_threshold=2, registry=None)
    fail(breaker)
    breaker.follow(CircuitState.OPEN, "5 failures in a row; last failures: OSError", 7.0)
    assert breaker.get_metrics()["reason"] == "5 failures in a row; last failures: OSError"


def test_the_one_that_opened_keeps_its_reason() -> None:
    """It keeps its reason even when the others confirm the opening."""
    breaker = CircuitBreaker("shop", failure_threshold=1, registry=None)
    fail(breaker)
    reason = breaker.get_metrics()["reason"]
    breaker.follow(CircuitState.OPEN, f"{reason} (opened by web-1)", 7.0)
    assert breaker.get_metrics()["reason"] == reason


def test_it_starts_open_with_the_others() -> None:
    """This is not a transition: none is counted, and no listener is notified."""
    heard: list[StateChanged] = []

    class Listener:
        def on_state_change(self, event: StateChanged, /) -> None:
            heard.append(event)

    breaker = CircuitBreaker(
        "shop", listeners=[Listener()], backoff=Backoff(jitter=0.0), registry=None
    )
    breaker.start_open("5 failures in a row (opened by web-1)", 7.0, 2)
    with pytest.raises(CircuitOpenError) as refusal:
        breaker.call_sync(str)
    assert refusal.value.reason == "5 failures in a row (opened by web-1)"
    assert breaker.get_metrics()["opened_count"] == 0
    assert heard == []


def test_it_closes_with_the_others(breaker: CircuitBreaker) -> None:
    """Listeners receive the reason of the others."""
    heard: list[StateChanged] = []

    class Listener:
        def on_state_change(self, event: StateChanged, /) -> None:
            heard.append(event)

    breaker = CircuitBreaker("shop", failure_threshold=1, listeners=[Listener()], registry=None)
    fail(breaker)
    breaker.follow(CircuitState.CLOSED, "2 probes succeeded in the fleet")
    assert breaker.is_closed
    assert heard[-1].reason == "2 probes succeeded in the fleet"


def test_closing_a_closed_circuit_keeps_its_count() -> None:
    """Nothing changes."""
    breaker = CircuitBreaker("shop", failure_threshold=2, registry=None)
    fail(breaker)
    breaker.follow(CircuitState.CLOSED, "2 probes succeeded in the fleet")
    fail(breaker)
    assert breaker.is_open


@pytest.mark.parametrize("mode", ["force_open", "disable"])
def test_a_mode_takes_precedence(mode: str) -> None:
    """An operator's mode takes precedence over decisions of the others."""
    breaker = CircuitBreaker("shop", registry=None)
    getattr(breaker, mode)("maintenance")
    before = breaker.state
    breaker.follow(CircuitState.OPEN, "5 failures in a row", 7.0)
    assert breaker.state is before
    breaker.follow(CircuitState.CLOSED, "2 probes succeeded in the fleet")
    assert breaker.state is before
