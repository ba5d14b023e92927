"""The history of the last five minutes."""

from typing import Any

import pytest

from example_service.api.breakers.views import BreakerMetrics, Transition
from example_service.api.dashboard.history import BUCKET_SECONDS, WINDOW_SECONDS, History, epoch
from example_service.infra.resilience import CircuitState

AT = "2026-01-02T03:04:{:09.6f}+00:00"
START = epoch(AT.format(0))


def metrics(succeeded: int = 0, failed: int = 0, refused: int = 0) -> BreakerMetrics:
    """The metrics of a breaker that has counted these calls."""
    return BreakerMetrics(
        state=CircuitState.CLOSED,
        failure_count=0,
        success_count=0,
        total_failures=failed,
        total_successes=succeeded,
        total_rejections=refused,
        last_failure_time=None,
        failure_rate=0.0,
        retry_after=0.0,
        opened_count=0,
        in_flight=0,
    )


def change(second: float, before: str, after: str, wait: float | None = None) -> Transition:
    """A transition reported by a worker."""
    return Transition(
        at=AT.format(second),
        worker=1,
        breaker_name="payment",
        from_state=CircuitState(before),
        to_state=CircuitState(after),
        reason="for a test",
        wait_seconds=wait,
        failure_count=5,
        rejections=0,
        caused_by="rules",
    )


class Reports:
    """Consecutive reports of one circuit."""

    def __init__(self) -> None:
        self.history = History()
        self.transitions: list[Transition] = []

    def add(self, second: float, status: str = "closed", **given: Any) -> None:
        """Add the report for a second: the state, and the totals so far."""
        workers = given.pop("workers", [1])
        breakers = {"payment": (status, metrics(**given))}
        self.history.add(breakers, self.transitions, workers, START + second)

    @property
    def calls(self) -> list[list[int]]:
        """The buckets, with their start times relative to the first report."""
        buckets = self.history.circuits["payment"].buckets
        return [[int(start - START), *calls] for start, *calls in buckets]


@pytest.fixture
def reports() -> Reports:
    """A history without any report."""
    return Reports()


def test_calls_are_counted_in_buckets_of_five_seconds(reports: Reports) -> None:
    """Each bucket has the increase of the totals; without calls there is no bucket."""
    reports.add(0, succeeded=100, failed=7)
    reports.add(1, succeeded=103, failed=7)
    reports.add(4, succeeded=105, failed=8)
    reports.add(9, succeeded=105, failed=8)
    reports.add(12, succeeded=105, failed=8, refused=4)

    assert reports.calls == [[0, 5, 1, 0], [10, 0, 0, 4]]


def test_calls_after_a_reset_are_counted(reports: Reports) -> None:
    """A reset sets the totals to zero, so everything in them afterwards is new."""
    reports.add(0, succeeded=100)
    reports.add(1, succeeded=2)

    assert reports.calls == [[0, 2, 0, 0]]


@pytest.mark.parametrize("workers", [[], [1, 2]])
def test_a_change_of_workers_does_not_count_as_calls(reports: Reports, workers: list[int]) -> None:
    """Totals of different sets of workers cannot be compared."""
    reports.add(0, succeeded=100, workers=[1])
    reports.add(1, succeeded=900, workers=workers)
    reports.add(2, succeeded=901, workers=workers)

    assert reports.calls == ([] if not workers else [[0, 1, 0, 0]])


def test_the_calls_of_a_new_breaker_count_as_current(reports: Reports) -> None:
    """In the very first report, by contrast, the time of the calls is unknown."""
    reports.history.add({}, [], [1], START)
    reports.add(1, succeeded=3)

    assert reports.calls == [[0, 3, 0, 0]]


def test_five_minutes_are_kept(reports: Reports) -> None:
    """Older buckets are dropped, and a circuit that is gone is forgotten after that time."""
    for second in range(0, 3 * WINDOW_SECONDS, BUCKET_SECONDS):
        reports.add(second, succeeded=second)
    assert len(reports.calls) == WINDOW_SECONDS // BUCKET_SECONDS + 1

    reports.history.add({}, [], [1], START + 4 * WINDOW_SECONDS + 1)
    assert reports.history.circuits == {}


def test_an_outage_begins_when_the_circuit_leaves_its_closed_state(reports: Reports) -> None:
    """Failed probes belong to the outage: refusals and waits add up until the circuit closes."""
    reports.add(0)
    reports.transitions = [change(0.5, "closed", "open", 5)]
    reports.add(1, "open", refused=3)
    reports.transitions = [
        change(6.1, "half_open", "open", 10),
        change(6.0, "open", "half_open"),
        *reports.transitions,
    ]
    reports.add(7, "open", refused=4)
    circuit = reports.history.circuits["payment"]

    assert circuit.since == START + 0.5
    assert (circuit.spared, list(circuit.waits)) == (4, [5, 10])
    assert [(round(at - START, 1), status) for at, status in circuit.periods] == [
        (0, "closed"),
        (0.5, "open"),
        (6.0, "half_open"),
        (6.1, "open"),
    ]

    reports.add(17, "closed", refused=4)
    assert (circuit.since, circuit.spared, list(circuit.waits)) == (START + 17, 0, [])


def test_calls_refused_up_to_the_end_belong_to_the_outage(reports: Reports) -> None:
    """What a period without service has spared is still known when it is over."""
    reports.add(0)
    reports.add(1, "open", refused=3)
    reports.add(2, "half_open", refused=10)
    reports.add(3, "closed", refused=17)
    reports.add(4, "closed", refused=17)
    circuit = reports.history.circuits["payment"]

    assert circuit.past == (START + 1, START + 3, 17, None)
    assert circuit.spared == 0


@pytest.mark.parametrize("mode", ["disabled", "shadow"])
def test_a_mode_that_refuses_nothing_is_no_outage(reports: Reports, mode: str) -> None:
    """Only a period in which calls were refused is remembered."""
    reports.add(0)
    reports.add(1, mode)
    reports.add(2, "closed")

    assert reports.history.circuits["payment"].past is None


def test_transitions_of_single_workers_are_not_shown_for_the_service(reports: Reports) -> None:
    """With several workers, the reports decide, which contain the worst state."""
    reports.add(0, workers=[1, 2])
    reports.transitions = [change(0.4, "half_open", "closed"), change(0.2, "closed", "open", 5)]
    reports.add(1, "open", workers=[1, 2])
    periods = reports.history.circuits["payment"].periods

    assert [(at - START, status) for at, status in periods] == [(0, "closed"), (1, "open")]


def test_several_workers_show_the_longest_current_wait(reports: Reports) -> None:
    """It is shown from the first open report on; the waits of workers differ slightly."""
    reports.add(0, workers=[1, 2])
    reports.transitions = [
        change(0.62, "closed", "open", wait=29.97),
        change(0.6, "closed", "open", wait=30.0),
    ]
    for second in (1, 2):
        reports.add(second, "open", workers=[1, 2])
        assert list(reports.history.circuits["payment"].waits) == [30.0]
    reports.add(32, "half_open", workers=[1, 2])
    reports.transitions.insert(0, change(32.5, "half_open", "open", wait=60.0))
    reports.add(33, "open", workers=[1, 2])
    assert list(reports.history.circuits["payment"].waits) == [60.0]


def test_the_end_of_a_wait_does_not_jitter(reports: Reports) -> None:
    """The remaining seconds are inexact, and every difference would be sent to every page."""
    reports.add(0)
    circuit = reports.history.circuits["payment"]

    assert circuit.end_of("wait", 10.0, START) == START + 10
    assert circuit.end_of("wait", 8.93, START + 1) == START + 10
    assert circuit.end_of("wait", 20.0, START + 2) == START + 22
    assert circuit.end_of("wait", 0.0, START + 22) is None
