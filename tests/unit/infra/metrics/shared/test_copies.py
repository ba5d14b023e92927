"""What a worker writes for the others, and what it adds up to."""

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
    """Each worker adds what it counted, however often it copies."""
    one, other = process(1), process(2)
    one.breakers.show(failures=3, successes=10, openings=1)
    other.breakers.show(failures=4, successes=20)
    for each in (one, other, one):
        each.figures.copy()
    one.breakers.show(failures=5, successes=10, openings=1)
    one.figures.copy()

    assert total("circuit_breaker_failures_total", name="payment") == 9
    assert total("circuit_breaker_successes_total", name="payment") == 30
    changes = "circuit_breaker_state_changes_total"
    assert total(changes, name="payment", from_state="closed", to_state="open") == 1


def test_the_worst_state_of_all_workers_shows(process: Processes, total: Total) -> None:
    """A circuit that is open in one worker is a circuit to look at."""
    one, other = process(1), process(2)
    one.breakers.show(state=CircuitState.OPEN)
    other.breakers.show(state=CircuitState.HALF_OPEN)
    one.figures.copy()
    other.figures.copy()
    assert total("circuit_breaker_state", name="payment") == 2

    one.breakers.show(state=CircuitState.CLOSED)
    one.figures.copy()
    assert total("circuit_breaker_state", name="payment") == 1


def test_what_is_in_flight_is_the_sum_of_all_workers(process: Processes, total: Total) -> None:
    """Calls and requests that run in any worker count."""
    one, other = process(1), process(2)
    one.breakers.show(in_flight=2)
    other.breakers.show(in_flight=3)
    for each in (one, other):
        each.requests.started()
        each.figures.copy()

    assert total("circuit_breaker_calls_in_flight", name="payment") == 5
    assert total("http_requests_in_flight") == 2


def test_the_greatest_window_of_all_workers_shows(process: Processes, total: Total) -> None:
    """Shares do not add up: the worker that is nearest to opening shows."""
    one, other = process(1), process(2)
    one.breakers.show(window=WindowCounts(failures=3, calls=40, threshold=0.5))
    other.breakers.show(window=WindowCounts(failures=10, calls=40, threshold=0.5))
    for each in (one, other):
        each.figures.copy()

    names = ("failure_rate", "calls", "threshold")
    window = [total(f"circuit_breaker_window_{one}", name="payment") for one in names]
    assert window == [0.25, 40, 0.5]


def test_a_mode_shows_in_how_many_workers_it_holds(process: Processes, total: Total) -> None:
    """An order of the administration reaches one worker; a mode that has ended is 0."""
    forced = {"name": "payment", "mode": "forced_open"}
    processes = [process(pid) for pid in (1, 2, 3)]
    for each, mode in zip(processes, (Mode.FORCED_OPEN, Mode.FORCED_OPEN, None), strict=True):
        each.breakers.show(mode=mode)
        each.figures.copy()
    assert total("circuit_breaker_mode", **forced) == 2
    assert total("circuit_breaker_mode", name="payment", mode="disabled") is None

    processes[0].breakers.show(mode=Mode.DISABLED)
    processes[0].figures.copy()
    processes[1].figures.clear_gauges()
    assert total("circuit_breaker_mode", **forced) == 0
    assert total("circuit_breaker_mode", name="payment", mode="disabled") == 1


def test_shadow_rejections_are_the_sum_of_all_workers(process: Processes, total: Total) -> None:
    """They stay when the mode has ended, and when the breaker is made anew."""
    one, other = process(1), process(2)
    one.breakers.show(mode=Mode.SHADOW, shadow_rejections=3)
    other.breakers.show(mode=Mode.SHADOW, shadow_rejections=4)
    for each in (one, other):
        each.figures.copy()
        each.breakers.show()
        each.figures.copy()
    other.breakers.show(mode=Mode.SHADOW, shadow_rejections=1)
    other.figures.copy()

    assert total("circuit_breaker_shadow_rejections_total", name="payment") == 8


def test_histograms_are_the_sum_of_all_workers(process: Processes, total: Total) -> None:
    """Buckets, sum and count of several workers make one histogram."""
    one, other = process(1), process(2)
    one.request(seconds=0.25)
    other.request(seconds=0.5)
    for each in (one, other, one):
        each.figures.copy()
    other.request(seconds=60.0)
    other.figures.copy()

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


def test_a_counter_that_starts_anew_does_not_go_down(process: Processes, total: Total) -> None:
    """A breaker is freed and made again under its name: the sum only grows."""
    one = process(1)
    one.breakers.show(failures=5, state=CircuitState.OPEN, in_flight=1)
    one.figures.copy()

    one.breakers.shown = []
    one.figures.copy()
    assert total("circuit_breaker_failures_total", name="payment") == 5
    assert total("circuit_breaker_state", name="payment") == 0
    assert total("circuit_breaker_calls_in_flight", name="payment") == 0

    one.breakers.show(failures=2)
    one.figures.copy()
    assert total("circuit_breaker_failures_total", name="payment") == 7


def test_a_worker_goes_on_from_the_counters_under_its_process_id(
    process: Processes, total: Total
) -> None:
    """Process ids come back, perhaps before anybody has put the old files away."""
    for failures in (2, 3):
        each = process(1)
        each.breakers.show(failures=failures)
        each.figures.copy()

    assert total("circuit_breaker_failures_total", name="payment") == 5


def test_gauges_are_nothing_once_they_are_cleared(process: Processes, total: Total) -> None:
    """A worker about to end has nothing in flight and no circuit open; its counters stay."""
    one = process(1)
    one.breakers.show(failures=5, state=CircuitState.OPEN, in_flight=1)
    one.requests.started()
    one.figures.copy()

    one.figures.clear_gauges()

    assert total("circuit_breaker_state", name="payment") == 0
    assert total("circuit_breaker_calls_in_flight", name="payment") == 0
    assert total("http_requests_in_flight") == 0
    assert total("circuit_breaker_failures_total", name="payment") == 5


def test_odd_names_survive_the_way_through_the_files(process: Processes, directory: Path) -> None:
    """What comes out is valid OpenMetrics text with the name that went in."""
    name = 'say "no"\nback\\slash ä'
    tracked = TrackedCircuits()
    tracked.failure(name)
    one = process(1)
    one.breakers.shown = tracked.snapshots()
    one.request()
    one.figures.copy()
    registry = CollectorRegistry()
    registry.register(SharedFiles(directory))

    text = render(registry, accept="application/openmetrics-text").body.decode()

    families = {one.name: one for one in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    (failures,) = families["circuit_breaker_failures"].samples
    assert (failures.labels, failures.value) == ({"name": name}, 1)


def test_series_are_bounded(
    value_class: Callable[[int], Any],
    directory: Path,
    total: Total,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Names without end fill neither the files nor the log; what is known goes on counting."""
    tracked = TrackedCircuits()
    figures = SharedMetrics(
        (CircuitBreakerCollector(tracked),), value_class=value_class(1), max_series=6
    )
    with caplog.at_level(logging.WARNING):
        for name in ("first", "second", "third", "first"):
            tracked.failure(name)
            figures.copy()

    samples = [sample for family in SharedFiles(directory).collect() for sample in family.samples]
    assert len(samples) == 6
    assert total("circuit_breaker_failures_total", name="first") == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_failure_to_copy_is_logged_once_until_it_works(
    process: Processes, total: Total, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk neither stops the service nor fills its log, and the figures catch up."""
    one = process(1)
    one.breakers.show(failures=1)
    working = one.figures.copy

    def fail() -> None:
        raise OSError(28, "No space left on device")

    for copy in (fail, fail, working, fail):
        one.figures.copy = copy  # type: ignore[method-assign]
        one.figures.try_copy()

    assert total("circuit_breaker_failures_total", name="payment") == 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
