"""The reports of the workers in their shared directory."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from example_service.infra.workers.reports import Reports


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that does not exist yet."""
    return tmp_path / "shared"


def test_a_report_creates_a_deleted_directory(directory: Path) -> None:
    """The other workers read the next report, a second later at most."""
    worker, reader = Reports(directory, pid=1), Reports(directory, pid=2)
    worker.write("first")
    shutil.rmtree(directory)
    assert reader.others() == {}
    worker.write("second")
    assert reader.others()[1].text == "second"


def _replace_by_file(directory: Path) -> None:
    directory.touch()


def _let_others_write(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)


def _link(directory: Path) -> None:
    elsewhere = directory.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    directory.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (_replace_by_file, "File exists"),
        (_let_others_write, "chmod go-w"),
        (_link, "is a symbolic link"),
    ],
)
def test_a_report_that_cannot_be_written_is_logged_once(
    directory: Path,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Path], None],
    reason: str,
) -> None:
    """The line has the reason, and another line follows when a report can be written again."""
    worker = Reports(directory, pid=1)
    fault(directory)
    worker.write("first")
    worker.write("second")
    (lost,) = caplog.messages
    assert reason in lost
    assert "Traceback" not in caplog.text

    directory.rename(directory.with_name("moved away"))
    worker.write("third")
    assert len(caplog.messages) == 2
