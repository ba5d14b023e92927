"""The workers' files, while the workers run and after they have ended."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from example_service.infra.metrics.shared import files as shared_files
from example_service.infra.metrics.shared.allocated import catch_up
from example_service.infra.metrics.shared.files import SharedFiles, archive, clear
from example_service.infra.resilience import CircuitState
from tests.unit.infra.metrics.fakes import FakeProcess

Processes = Callable[[int], FakeProcess]
Total = Callable[..., float | None]


def test_a_file_that_was_just_created_is_skipped(
    process: Processes, directory: Path, total: Total
) -> None:
    """A worker that is just starting does not break the scrape."""
    one = process(1)
    one.breakers.show(failures=1)
    one.shared.copy()
    (directory / "counter_2.db").touch()

    assert total("circuit_breaker_failures_total", name="payment") == 1


def test_an_ended_worker_has_nothing_in_flight(
    process: Processes, directory: Path, total: Total
) -> None:
    """Open circuits and running calls of a dead worker no longer count."""
    dead, living = process(1), process(2)
    dead.breakers.show(in_flight=2, state=CircuitState.OPEN)
    living.breakers.show(in_flight=3)
    for each in (dead, living):
        each.requests.started()
        each.shared.copy()

    archive(directory, 1)

    assert total("circuit_breaker_calls_in_flight", name="payment") == 3
    assert total("http_requests_in_flight") == 1
    assert total("circuit_breaker_state", name="payment") == 0


def test_counters_of_ended_workers_stay_in_the_sums(
    process: Processes, directory: Path, total: Total
) -> None:
    """No total decreases when a worker is replaced, even by one with the same process id."""
    for pid in (1, 2, 1, 3):
        each = process(pid)
        each.breakers.show(failures=2)
        each.request(seconds=0.5)
        each.shared.copy()
        archive(directory, pid)
    living = process(4)
    living.breakers.show(failures=1)
    living.request(seconds=0.25)
    living.shared.copy()

    labels = {"method": "GET", "route": "/"}
    duration = "http_request_duration_seconds"
    assert total("circuit_breaker_failures_total", name="payment") == 9
    assert total("http_requests_total", **labels, status="200") == 5
    assert total(f"{duration}_bucket", **labels, le="0.25") == 1
    assert total(f"{duration}_bucket", **labels, le="0.5") == 5
    assert total(f"{duration}_sum", **labels) == 2.25


def test_ended_workers_leave_one_file_of_each_kind(process: Processes, directory: Path) -> None:
    """Scrapes do not get slower when workers keep dying for weeks."""
    for pid in range(1, 6):
        each = process(pid)
        each.breakers.show(failures=1)
        each.request()
        each.shared.copy()
        archive(directory, pid)

    assert sorted(path.name for path in directory.glob("*.db")) == [
        "counter_ended.db",
        "histogram_ended.db",
    ]


def test_a_worker_that_left_no_complete_file_causes_no_error(directory: Path) -> None:
    """It may have died before it wrote a value, or while it created its file."""
    (directory / "counter_1.db").touch()

    archive(directory, 1)

    assert [family for family in SharedFiles(directory).collect() if family.samples] == []


def test_a_scrape_waits_while_counters_are_moved(
    process: Processes, directory: Path, total: Total, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the move, a scrape would count them twice."""
    for pid in (1, 2):
        each = process(pid)
        each.breakers.show(failures=1)
        each.shared.copy()
    archive(directory, 1)
    seen: list[float | None] = []
    reading = threading.Thread(
        target=lambda: seen.append(total("circuit_breaker_failures_total", name="payment"))
    )
    add = shared_files._add

    def add_with_a_reader(ended: Path, sums: Path) -> None:
        add(ended, sums)
        if not reading.ident:
            reading.start()
            reading.join(0.1)
        assert seen == []

    monkeypatch.setattr(shared_files, "_add", add_with_a_reader)
    archive(directory, 2)
    reading.join(60)

    assert seen == [2]


@pytest.mark.parametrize(
    "contents", [b"\x40\0\0\0\0\0\0\0\x40\0\0\0", b"\x20\0\0\0\0\0\0\0\x04\0\0\0no"]
)
def test_a_damaged_file_is_written_again(
    process: Processes,
    directory: Path,
    total: Total,
    contents: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It breaks no scrape, and its worker still knows the values."""
    one, other = process(1), process(2)
    for each in (one, other):
        each.breakers.show(failures=1)
        each.shared.copy()
    with (directory / "counter_1.db").open("r+b") as file:
        file.write(contents + bytes(100))

    assert total("circuit_breaker_failures_total", name="payment") == 1
    assert catch_up(directory)
    assert total("circuit_breaker_failures_total", name="payment") == 2
    lost, back = caplog.messages
    assert "counter_1.db is damaged" in lost
    assert "again" in back


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """Their targets are not metrics of a worker, and clearing removes only the link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not metrics")
    directory = tmp_path / "metrics"
    directory.mkdir()
    (directory / "counter_1.db").symlink_to(elsewhere)

    assert list(SharedFiles(directory).collect()) == []
    archive(directory, 1)
    clear(directory)

    assert elsewhere.read_bytes() == b"not metrics"
    assert not (directory / "counter_1.db").is_symlink()


def test_a_scrape_works_where_the_lock_cannot_be_opened(
    process: Processes, directory: Path, total: Total
) -> None:
    """The directory may have become read-only, which a directory named like the lock imitates."""
    one = process(1)
    one.breakers.show(failures=1)
    one.shared.copy()
    (directory / "lock").mkdir()

    assert total("circuit_breaker_failures_total", name="payment") == 1


def test_a_scrape_works_where_the_directory_was_deleted(tmp_path: Path) -> None:
    """There is nothing to sum, which is not an error."""
    assert list(SharedFiles(tmp_path / "deleted").collect()) == []
