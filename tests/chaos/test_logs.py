"""The check of the logs finds errors and nothing else."""

from pathlib import Path

import pytest

from tests.chaos.logs import (
    is_announced,
    longest_served_seconds,
    serving_workers,
    unexpected_lines,
)

QUIET = """
Example Service 1.0 is ready: http://127.0.0.1:8000
{"level":"info","event":"Serving"}
{"level":"warning","event":"A payment could not be charged yet"}
{"level":"error","event":"A worker died and is replaced"}
{"level":"info","event":"request","duration_seconds":0.25}
{"level":"info","event":"request","duration_seconds":1.5}
{"level":"error","event":"cut sho"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of a service that was killed while it wrote a line."""
    path = tmp_path / "service-001.log"
    path.write_text(QUIET)
    (tmp_path / "service-001.err").touch()
    return path


def test_what_belongs_to_a_storm_is_expected(log: Path) -> None:
    """Warnings, workers that died and truncated lines are not faults."""
    assert unexpected_lines(log.parent) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"level":"error","event":"Task exception was never retrieved"}',
        '{"level":"critical","event":"anything"}',
        '{"level":"warning","event":"anything","exception":"Traceback ..."}',
        "Traceback (most recent call last):",
    ],
)
def test_an_error_or_traceback_is_found_with_its_place(log: Path, line: str) -> None:
    """The report names the file and the line."""
    log.write_text(f"{QUIET}\n{line}\n")

    [found] = unexpected_lines(log.parent)

    assert found == f"service-001.log:9: {line}"


def test_any_line_on_standard_error_is_found(log: Path) -> None:
    """The service writes nothing there while it serves."""
    log.with_suffix(".err").write_text("Exception ignored in: ...\n")

    assert unexpected_lines(log.parent) == ["service-001.err:1: Exception ignored in: ..."]


def test_a_worker_serves_when_its_application_has_started(tmp_path: Path) -> None:
    """A worker that is still starting is not listed."""
    log = tmp_path / "service-001.log"
    log.write_text(
        '{"level":"info","event":"Started server process [41]"}\n'
        '{"level":"info","event":"Application startup complete."}\n'
        '{"level":"info","event":"Started server process [42]"}\n'
    )

    assert serving_workers(log) == [41]
    assert not is_announced(log)


def test_the_longest_request_is_found(log: Path) -> None:
    """Access lines have the duration of each request."""
    assert is_announced(log)
    assert longest_served_seconds(log.parent) == 1.5
