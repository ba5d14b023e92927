"""How leases decide when an open circuit becomes half-open."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from example_service.infra.fleet.gate import ASK_SECONDS, LeaseGate
from example_service.infra.fleet.participant import Grant
from example_service.infra.resilience.testing import FakeClock

NAME = "payment"


class Calls:
    """Records the calls of a gate."""

    def __init__(self) -> None:
        self.demands = 0
        self.ended: list[tuple[str, bool | None]] = []

    def demand(self, name: str) -> None:
        """Count a demand."""
        assert name == NAME
        self.demands += 1

    def end(self, name: str, lease_id: str, succeeded: bool | None) -> None:
        """Note an outcome."""
        assert name == NAME
        self.ended.append((lease_id, succeeded))


@pytest.fixture
def calls() -> Calls:
    """The recorded calls of the gate."""
    return Calls()


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the grants."""
    return FakeClock(100.0)


@pytest.fixture
def gate(calls: Calls, clock: FakeClock) -> LeaseGate:
    """A gate that needs leases."""
    gate = LeaseGate(NAME, calls.demand, calls.end, clock=clock)
    gate.is_bound = True
    return gate


def test_a_process_outside_a_fleet_probes_without_leases(gate: LeaseGate, calls: Calls) -> None:
    """The gate is always open, and reports nothing."""
    gate.is_bound = False
    assert gate.can_probe()
    assert gate.take_probe()
    gate.request_probe()
    gate.probe_ended(succeeded=True)
    assert (calls.demands, calls.ended) == (0, [])


def test_a_lease_admits_one_probe(gate: LeaseGate, calls: Calls, clock: FakeClock) -> None:
    """The outcome of the probe is reported with the id of the lease."""
    assert not gate.can_probe()
    assert not gate.take_probe()
    gate.grant(Grant("x", clock() + 1))
    assert gate.can_probe()
    assert gate.take_probe()
    assert not gate.take_probe()
    gate.probe_ended(succeeded=True)
    assert calls.ended == [("x", True)]


def test_a_lease_that_was_not_used_in_time_is_given_back(
    gate: LeaseGate, calls: Calls, clock: FakeClock
) -> None:
    """Either the late call or the member gives it back."""
    gate.grant(Grant("x", clock() + 1))
    gate.grant(Grant("y", clock() + 1))
    clock.advance(1.0)
    assert not gate.can_probe()
    assert gate.take_expired() == ["x", "y"]
    gate.grant(Grant("z", clock()))
    assert not gate.take_probe()
    assert calls.ended == [("z", None)]


def test_refused_calls_ask_for_leases_at_a_limited_rate(
    gate: LeaseGate, calls: Calls, clock: FakeClock
) -> None:
    """A thousand refusals per second cause only fifty requests for a lease."""
    gate.request_probe()
    gate.request_probe()
    assert calls.demands == 1
    clock.advance(ASK_SECONDS)
    gate.request_probe()
    assert calls.demands == 2


def test_a_new_period_voids_all_leases(gate: LeaseGate, calls: Calls, clock: FakeClock) -> None:
    """It does not matter whether they were used."""
    gate.grant(Grant("x", clock() + 1))
    gate.take_probe()
    gate.grant(Grant("y", clock() + 1))
    gate.clear()
    gate.probe_ended(succeeded=True)
    assert not gate.can_probe()
    assert calls.ended == []


@pytest.fixture
def fast_thread_switches() -> Iterator[None]:
    """Make the interpreter switch between threads as often as possible."""
    seconds = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(seconds)


@pytest.mark.usefixtures("fast_thread_switches")
def test_threads_share_the_leases(gate: LeaseGate, calls: Calls, clock: FakeClock) -> None:
    """Each lease ends once: either in the thread that used it, or because it has expired."""
    count = 5000
    is_over = threading.Event()

    def probe() -> None:
        while not is_over.is_set():
            if gate.can_probe() and gate.take_probe():
                gate.probe_ended(succeeded=True)
            else:
                gate.request_probe()

    threads = [threading.Thread(target=probe) for _ in range(4)]
    for thread in threads:
        thread.start()
    expired = []
    for number in range(count):
        gate.grant(Grant(f"{number}", clock() + number % 3))
        expired += gate.take_expired()
    end = time.monotonic() + 60
    while len(calls.ended) + len(expired) < count and time.monotonic() < end:
        expired += gate.take_expired()
    is_over.set()
    for thread in threads:
        thread.join()
    ended = Counter([lease_id for lease_id, _ in calls.ended] + expired)
    assert set(ended.values()) == {1}
    assert len(ended) == count
