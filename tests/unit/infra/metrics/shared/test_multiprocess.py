"""Whether a process shares its metrics, and the directory of those that do."""

import asyncio
import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from example_service.core.exceptions import SettingsError
from example_service.infra.metrics.shared import multiprocess
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.metrics.shared.files import SharedFiles
from example_service.infra.metrics.shared.multiprocess import (
    directory_problems,
    mark_worker_dead,
    prepare_multiprocess_directory,
    shared_metrics,
    this_worker,
)
from example_service.infra.metrics.shared.worker import Worker
from example_service.infra.workers.reports import report_path
from example_service.infra.workers.shared_directory import DIRECTORY_VARIABLE

NEVER_A_PID = 4_194_305  # One more than the highest process id of Linux.


def names_in(directory: Path) -> list[str]:
    """The names of the files in the directory."""
    return [path.name for path in directory.iterdir()]


def run(program: str, **environment: str) -> list[str]:
    """Run a Python program in a process of its own, and return the lines that it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.splitlines()


async def test_a_single_process_has_nothing_to_share() -> None:
    """Without the directory, no task is started."""
    async with shared_metrics():
        assert this_worker() is None
        assert asyncio.all_tasks() == {asyncio.current_task()}


def test_without_a_directory_a_dead_worker_needs_no_clean_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A supervisor may report every dead worker, whether metrics are shared or not."""
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)

    mark_worker_dead(NEVER_A_PID)


def test_a_dead_worker_without_its_directory_is_one_line_in_the_log(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The supervisor continues, and logs no traceback for each worker that ends."""
    shutil.rmtree(directory)

    assert mark_worker_dead(NEVER_A_PID)
    assert mark_worker_dead(NEVER_A_PID)

    (line,) = caplog.messages
    assert "cannot use the shared directory" in line


def test_a_dead_worker_s_report_is_removed(directory: Path) -> None:
    """A worker that is known to be dead does not count as silent."""
    report_path(directory, NEVER_A_PID).touch()

    mark_worker_dead(NEVER_A_PID)

    assert not report_path(directory, NEVER_A_PID).exists()


def test_a_file_that_cannot_be_read_does_not_stop_the_supervisor(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The damaged file is logged, and later scrapes ignore it."""
    (directory / f"counter_{NEVER_A_PID}.db").write_bytes(b"no metrics")

    mark_worker_dead(NEVER_A_PID)

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert list(SharedFiles(directory).collect()) == []


def test_a_configured_directory_is_created_and_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics of an earlier run do not count again, and other files are kept."""
    given = tmp_path / "not" / "there"
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(given))
    assert prepare_multiprocess_directory() == given
    stale = ("counter_1.db", "gauge_livesum_1.db", "report.1", "member.host-1", "circuits")
    for name in (*stale, "notes.txt"):
        (given / name).touch()

    prepare_multiprocess_directory()

    assert names_in(given) == ["notes.txt"]


def test_a_directory_that_cannot_be_used_is_a_fault_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which variable to change, and why."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "file" / "below"))

    with pytest.raises(SettingsError) as caught:
        prepare_multiprocess_directory()

    (problem,) = caught.value.problems
    assert problem.variable == DIRECTORY_VARIABLE
    assert "Not a directory" in problem.problem
    assert [each.variable for each in directory_problems()] == [DIRECTORY_VARIABLE]


@pytest.mark.parametrize("environment", [{}, {DIRECTORY_VARIABLE: ""}])
def test_a_directory_of_its_own_lasts_as_long_as_the_process(
    environment: dict[str, str],
) -> None:
    """It is new, private, known to processes started later, and removed at the end."""
    program = """
import subprocess, sys
from example_service.infra.metrics.shared.multiprocess import prepare_multiprocess_directory
directory = prepare_multiprocess_directory()
print(directory)
print(oct(directory.stat().st_mode & 0o777), flush=True)
worker = '''
import os
from example_service.infra.metrics.shared.multiprocess import this_worker
print(this_worker() is not None)
print(os.environ["PROMETHEUS_MULTIPROC_DIR"])
'''
subprocess.run([sys.executable, "-c", worker], check=True)
"""
    with tempfile.TemporaryDirectory() as parent:
        directory, mode, is_worker, inherited = run(program, TMPDIR=parent, **environment)

        assert str(Path(directory).parent) == parent
        assert (mode, is_worker, inherited) == ("0o700", "True", directory)
        assert names_in(Path(parent)) == []


async def test_the_directory_of_a_killed_supervisor_stays_while_its_workers_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they would create it again, and no later start would remove it."""
    left_over = tmp_path / "example-service-1"
    left_over.mkdir()
    (left_over / "owner").touch()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    worker = Worker(left_over, SharedMetrics(()))
    monkeypatch.setattr(multiprocess, "this_worker", lambda: worker)
    monkeypatch.setattr(multiprocess, "_claims", contextlib.ExitStack())
    monkeypatch.setattr(atexit, "register", lambda *_, **__: None)

    def start_next() -> None:
        monkeypatch.delenv(DIRECTORY_VARIABLE)
        prepare_multiprocess_directory()

    monkeypatch.setenv(DIRECTORY_VARIABLE, str(left_over))
    async with shared_metrics():
        start_next()
        assert left_over.exists()
    start_next()

    assert not left_over.exists()


def test_an_empty_variable_does_not_make_the_process_a_worker() -> None:
    """The library alone would write into the current directory."""
    program = """
from example_service.infra.metrics.shared.multiprocess import this_worker
print(this_worker())
"""

    assert run(program, PROMETHEUS_MULTIPROC_DIR="") == ["None"]


@pytest.mark.parametrize("fault", ["link", "group", "others", "owner"])
def test_a_directory_that_others_can_change_is_a_fault_of_the_settings(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise this user would read and remove files that others put there."""
    directory = tmp_path / "metrics"
    directory.mkdir()
    kept = directory / "counter_1.db"
    kept.write_bytes(b"")
    if fault == "link":
        directory = tmp_path / "link"
        directory.symlink_to(tmp_path / "metrics")
    elif fault == "owner":
        monkeypatch.setattr("os.geteuid", lambda: directory.stat().st_uid + 1)
    else:
        directory.chmod(0o770 if fault == "group" else 0o707)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory))

    assert [each.variable for each in directory_problems()] == [DIRECTORY_VARIABLE]
    with pytest.raises(SettingsError, match="PROMETHEUS_MULTIPROC_DIR"):
        prepare_multiprocess_directory()

    assert kept.exists()


def test_a_directory_is_checked_without_creating_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing directory is no problem, because `serve` creates it."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "run" / "metrics"))
    assert directory_problems() == []
    monkeypatch.delenv(DIRECTORY_VARIABLE)
    assert directory_problems() == []

    assert names_in(tmp_path) == []
