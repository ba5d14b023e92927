"""The files of the directory that workers share."""

import os
from pathlib import Path

import pytest

from example_service.infra.workers.shared_directory import clear_directory, locked, replace_file


def test_a_lock_that_is_a_pipe_or_a_link_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait for its reader, and the link may lead to a file of another user."""
    pipe, link, elsewhere = tmp_path / "pipe", tmp_path / "link", tmp_path / "elsewhere"
    os.mkfifo(pipe)
    link.symlink_to(elsewhere)

    for path in (pipe, link):
        with pytest.raises(OSError, match=str(path)), locked(path, exclusive=True):
            pytest.fail("it was locked")

    assert not elsewhere.exists()


def test_a_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    """The link in the place of the temporary file is removed, so that the next write works."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("of another program")
    (tmp_path / f".circuits.{os.getpid()}").symlink_to(elsewhere)

    with pytest.raises(OSError, match="circuits"):
        replace_file(tmp_path / "circuits", "new")
    replace_file(tmp_path / "circuits", "newer")

    assert elsewhere.read_text() == "of another program"
    assert (tmp_path / "circuits").read_text() == "newer"


def test_a_lock_of_an_earlier_run_is_removed(tmp_path: Path) -> None:
    """It may be a pipe, which no process could lock."""
    os.mkfifo(tmp_path / "lock")

    clear_directory(tmp_path)

    with locked(tmp_path / "lock", exclusive=True):
        assert (tmp_path / "lock").is_file()
