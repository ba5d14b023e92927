"""The metrics that a worker writes for the others, and their totals."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)

from example_service.infra.metrics.circuit_breakers import CircuitBreakerCollector
from example_service.infra.metrics.exposition import render
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.metrics.shared.files import SharedFiles
from example_service.infra.metrics.tracking import TrackedCircuits
from example_service.infra.resilience import CircuitState
from example_service.infra.resilience.metrics import WindowCounts
from example_service.infra.resilience.rules.states import Mode
from tests.unit.infra.metrics.fakes import FakeProcess

Processes = Callable[[int], FakeProcess]
Total = Callable[..., float | None]


def test_counters_are_the_sum_of_all_workers(process: Processes, total: Total) -> None:
    """The counts of each worker are added once, however often it copies them."""
    one, other = process(1), process(2)
    one.breakers.show(failures=3, successes=10, openings=1)
    other.breakers.show(failures=4, successes=20)
    for each in (one, other, one):
        each.shared.copy()
    one.breakers.show(failures=5, successes=10, openings=1)
    one.shared.copy()

    assert total("circuit_breaker_failures_total", name="payment") == 9
    assert total("circuit_breaker_successes_total", name="payment") == 30
    changes = "circuit_breaker_state_changes_total"
    assert total(changes, name="payment", from_state="closed", to_state="open") == 1


def test_the_worst_state_of_all_workers_is_shown(process: Processes, total: Total) -> None:
    """A circuit that is open in only one worker is shown as open."""
    one, other = process(1), process(2)
    one.breakers.show(state=CircuitState.OPEN)
    other.breakers.show(state=CircuitState.HALF_OPEN)
    one.shared.copy()
    other.shared.copy()
    assert total("circuit_breaker_state", name="payment") == 2

    one.breakers.show(state=CircuitState.CLOSED)
    one.shared.copy()
    assert total("circuit_breaker_state", name="payment") == 1


def test_calls_in_flight_are_the_sum_of_all_workers(process: Processes, total: Total) -> None:
    """Running calls and requests of every worker count."""
    one, other = process(1), process(2)
    one.breakers.show(in_flight=2)
    other.breakers.show(in_flight=3)
    for each in (one, other):
        each.requests.started()
        each.shared.copy()

    assert total("circuit_breaker_calls_in_flight", name="payment") == 5
    assert total("http_requests_in_flight") == 2


def test_the_highest_failure_rate_of_all_workers_is_shown(process: Processes, total: Total) -> None:
    """Rates cannot be added, so the worker that is closest to opening is shown."""
    one, other = process(1), process(2)
    one.breakers.show(window=WindowCounts(failures=3, calls=40, threshold=0.5))
    other.breakers.show(window=WindowCounts(failures=10, calls=40, threshold=0.5))
    for each in (one, other):
        each.shared.copy()

    names = ("failure_rate", "calls", "threshold")
    window = [total(f"circuit_breaker_window_{name}", name="payment") for name in names]
    assert window == [0.25, 40, 0.5]


def test_a_mode_is_shown_with_the_number_of_its_workers(process: Processes, total: Total) -> None:
    """An operator's command may reach only one worker; a mode that has ended is shown as 0."""
    forced = {"name": "payment", "mode": "forced_open"}
    processes = [process(pid) for pid in (1, 2, 3)]
    for each, mode in zip(processes, (Mode.FORCED_OPEN, Mode.FORCED_OPEN, None), strict=True):
        each.breakers.show(mode=mode)
        each.shared.copy()
    assert total("circuit_breaker_mode", **forced) == 2
    assert total("circuit_breaker_mode", name="payment", mode="disabled") is None

    processes[0].breakers.show(mode=Mode.DISABLED)
    processes[0].shared.copy()
    processes[1].shared.clear_gauges()
    assert total("circuit_breaker_mode", **forced) == 0
    assert total("circuit_breaker_mode", name="payment", mode="disabled") == 1


def test_shadow_rejections_are_the_sum_of_all_workers(process: Processes, total: Total) -> None:
    """The count remains when the mode ends, and when the breaker is created again."""
    one, other = process(1), process(2)
    one.breakers.show(mode=Mode.SHADOW, shadow_rejections=3)
    other.breakers.show(mode=Mode.SHADOW, shadow_rejections=4)
    for each in (one, other):
        each.shared.copy()
        each.breakers.show()
        each.shared.copy()
    other.breakers.show(mode=Mode.SHADOW, shadow_rejections=1)
    other.shared.copy()

    assert total("circuit_breaker_shadow_rejections_total", name="payment") == 8


def test_histograms_are_the_sum_of_all_workers(process: Processes, total: Total) -> None:
    """Buckets, sums and counts of several workers form one histogram."""
    one, other = process(1), process(2)
    one.request(seconds=0.25)
    other.request(seconds=0.5)
    for each in (one, other, one):
        each.shared.copy()
    other.request(seconds=60.0)
    other.shared.copy()

    labels = {"method": "GET", "route": "/"}
    duration = "http_request_duration_seconds"
    buckets = {
        end: total(f"{duration}_bucket", **labels, le=end)
        for end in ("0.1", "0.25", "0.5", "10.0", "+Inf")
    }
    assert buckets == {"0.1": 0, "0.25": 1, "0.5": 2, "10.0": 2, "+Inf": 3}
    assert total(f"{duration}_count", **labels) == 3
    assert total(f"{duration}_sum", **labels) == 60.75
    assert total("http_requests_total", **labels, status="200") == 3


def test_a_counter_that_starts_again_does_not_go_down(process: Processes, total: Total) -> None:
    """A breaker may be freed and created again with the same name; the sum only grows."""
    one = process(1)
    one.breakers.show(failures=5, state=CircuitState.OPEN, in_flight=1)
    one.shared.copy()

    one.breakers.shown = []
    one.shared.copy()
    assert total("circuit_breaker_failures_total", name="payment") == 5
    assert total("circuit_breaker_state", name="payment") == 0
    assert total("circuit_breaker_calls_in_flight", name="payment") == 0

    one.breakers.show(failures=2)
    one.shared.copy()
    assert total("circuit_breaker_failures_total", name="payment") == 7


def test_a_worker_continues_the_counters_of_its_process_id(
    process: Processes, total: Total
) -> None:
    """A process id may be reused before the old files have been merged."""
    for failures in (2, 3):
        each = process(1)
        each.breakers.show(failures=failures)
        each.shared.copy()

    assert total("circuit_breaker_failures_total", name="payment") == 5


def test_cleared_gauges_are_zero(process: Processes, total: Total) -> None:
    """A worker that is about to end has no call in flight and no open circuit; counters remain."""
    one = process(1)
    one.breakers.show(failures=5, state=CircuitState.OPEN, in_flight=1)
    one.requests.started()
    one.shared.copy()

    one.shared.clear_gauges()

    assert total("circuit_breaker_state", name="payment") == 0
    assert total("circuit_breaker_calls_in_flight", name="payment") == 0
    assert total("http_requests_in_flight") == 0
    assert total("circuit_breaker_failures_total", name="payment") == 5


def test_unusual_names_survive_the_files(process: Processes, directory: Path) -> None:
    """The output is valid OpenMetrics text with the original name."""
    name = 'say "no"\nback\\slash ä'
    tracked = TrackedCircuits()
    tracked.failure(name)
    one = process(1)
    one.breakers.shown = tracked.snapshots()
    one.request()
    one.shared.copy()
    registry = CollectorRegistry()
    registry.register(SharedFiles(directory))

    text = render(registry, accept="application/openmetrics-text").body.decode()

    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    (failures,) = families["circuit_breaker_failures"].samples
    assert (failures.labels, failures.value) == ({"name": name}, 1)


def test_series_are_bounded(
    value_class: Callable[[int], Any],
    directory: Path,
    total: Total,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Unlimited names fill neither the files nor the log, and known names keep counting."""
    tracked = TrackedCircuits()
    shared = SharedMetrics(
        (CircuitBreakerCollector(tracked),), value_class=value_class(1), max_series=6
    )
    with caplog.at_level(logging.WARNING):
        for name in ("first", "second", "third", "first"):
            tracked.failure(name)
            shared.copy()

    samples = [sample for family in SharedFiles(directory).collect() for sample in family.samples]
    assert len(samples) == 6
    assert total("circuit_breaker_failures_total", name="first") == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_failure_to_copy_is_logged_once_until_it_works(
    process: Processes, total: Total, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk neither stops the service nor fills its log, and the metrics catch up."""
    one = process(1)
    one.breakers.show(failures=1)
    working = one.shared.copy

    def fail() -> None:
        raise OSError(28, "No space left on device")

    for copy in (fail, fail, working, fail):
        one.shared.copy = copy  # type: ignore[method-assign]
        one.shared.try_copy()

    assert total("circuit_breaker_failures_total", name="payment") == 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
