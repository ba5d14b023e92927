"""An outage that opens every circuit of every process, in virtual time."""

import pytest

from benchmarks.large_fleet import OUTAGE_SECONDS, Figures, simulate
from tests.unit.infra.fleet.simulated_breakers import RULES
from tests.virtual_loop import run_virtually

PROCESSES, CIRCUITS = 20, 30


@pytest.fixture(scope="module")
def figures() -> Figures:
    """What an outage of a small fleet shows; `make bench` simulates a large one."""
    return run_virtually(simulate(PROCESSES, CIRCUITS))


def test_every_circuit_opens_everywhere(figures: Figures) -> None:
    """No call reaches a dependency from then until the wait is over."""
    assert figures.opening < OUTAGE_SECONDS
    assert len(figures.records) == CIRCUITS
    assert all(record.is_open for record in figures.records.values())
    assert figures.probes_while_open == 0


def test_every_circuit_closes_everywhere(figures: Figures) -> None:
    """After the wait, some leases expire unused, because calls are half a second apart."""
    assert figures.recovery < RULES.recovery_timeout + 10


def test_the_probes_of_each_circuit_stay_within_the_limit(figures: Figures) -> None:
    """There are never more leases than successes that are needed."""
    assert figures.most_leases == RULES.success_threshold
    assert 1 <= figures.most_probes <= RULES.half_open_max_calls


def test_an_idle_process_sends_two_requests_a_second(figures: Figures) -> None:
    """Each gets a reply, and nothing else is sent."""
    assert figures.idle / PROCESSES == pytest.approx(4.0, rel=0.1)


def test_a_circuit_costs_each_process_few_messages(figures: Figures) -> None:
    """Each change of a record is announced to every process once."""
    assert figures.messages / PROCESSES / CIRCUITS < 12
