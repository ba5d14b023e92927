"""Reports about circuit breakers of other libraries."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry

from example_service.infra.metrics import tracking
from example_service.infra.metrics.circuit_breakers import CircuitBreakerCollector
from example_service.infra.metrics.tracking import (
    TrackedCircuits,
    track_circuit_breaker_failure,
    track_circuit_breaker_state_change,
    track_circuit_breaker_success,
    update_circuit_breaker_state,
)
from example_service.infra.resilience import CircuitSnapshot, CircuitState


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> TrackedCircuits:
    """The circuits that the four functions report on, without any report yet."""
    circuits = TrackedCircuits()
    monkeypatch.setattr(tracking, "tracked_circuits", circuits)
    return circuits


def test_reports_become_the_metrics_of_their_circuit(tracked: TrackedCircuits) -> None:
    """The four documented functions fill one snapshot per name."""
    track_circuit_breaker_success("legacy")
    track_circuit_breaker_failure("legacy")
    track_circuit_breaker_failure("legacy")
    track_circuit_breaker_state_change("legacy", "closed", "open")
    update_circuit_breaker_state("other", CircuitState.HALF_OPEN)

    assert tracked.snapshots() == [
        CircuitSnapshot(
            name="legacy",
            state=CircuitState.OPEN,
            failures=2,
            successes=1,
            rejections=0,
            in_flight=0,
            state_changes={(CircuitState.CLOSED, CircuitState.OPEN): 1},
        ),
        CircuitSnapshot(
            name="other",
            state=CircuitState.HALF_OPEN,
            failures=0,
            successes=0,
            rejections=0,
            in_flight=0,
            state_changes={},
        ),
    ]


def test_reporting_a_state_does_not_count_as_a_change(tracked: TrackedCircuits) -> None:
    """A state by itself is not a transition."""
    update_circuit_breaker_state("legacy", "open")
    update_circuit_breaker_state("legacy", "closed")

    (circuit,) = tracked.snapshots()
    assert circuit.state is CircuitState.CLOSED
    assert circuit.state_changes == {}


def test_reports_are_exported_beside_our_own_breakers(tracked: TrackedCircuits) -> None:
    """The default sources of the collector include the reports."""
    registry = CollectorRegistry()
    registry.register(CircuitBreakerCollector(tracked))
    track_circuit_breaker_failure("legacy")

    labels = {"name": "legacy"}
    assert registry.get_sample_value("circuit_breaker_failures_total", labels) == 1


@pytest.mark.parametrize(
    ("report", "parameter"),
    [
        (lambda: update_circuit_breaker_state("legacy", "ajar"), "state"),
        (lambda: track_circuit_breaker_state_change("legacy", "ajar", "open"), "from_state"),
        (lambda: track_circuit_breaker_state_change("legacy", "open", "ajar"), "to_state"),
    ],
)
def test_an_unknown_state_is_refused_with_the_known_ones(
    tracked: TrackedCircuits, report: Callable[[], None], parameter: str
) -> None:
    """The error names the parameter and its valid values, and nothing is counted."""
    with pytest.raises(
        ValueError,
        match=f"^{parameter} must be one of 'closed', 'open', 'half_open', not 'ajar'$",
    ):
        report()

    assert tracked.snapshots() == []


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_must_be_a_non_empty_string(tracked: TrackedCircuits, name: str) -> None:
    """A circuit without a name cannot be distinguished from others."""
    with pytest.raises(ValueError, match="name must be a text that is not empty"):
        track_circuit_breaker_failure(name)

    assert tracked.snapshots() == []


def test_names_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Names taken from requests cannot fill the memory, and one warning is logged."""
    circuits = TrackedCircuits(max_names=2)

    with caplog.at_level(logging.WARNING):
        for name in ("a", "b", "c", "d", "a"):
            circuits.failure(name)

    assert {circuit.name: circuit.failures for circuit in circuits.snapshots()} == {"a": 2, "b": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_reports_from_threads_are_all_counted() -> None:
    """No report of any thread is lost."""
    circuits = TrackedCircuits()

    def report(_: int) -> None:
        for _ in range(500):
            circuits.failure("legacy")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(report, range(4)))

    assert [circuit.failures for circuit in circuits.snapshots()] == [2000]
