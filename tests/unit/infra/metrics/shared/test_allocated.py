"""Metrics files are allocated before use, so a full disk costs only metrics."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from example_service.infra.metrics.shared.allocated import AllocatedDict, RecoverableDict, catch_up

resource = pytest.importorskip("resource")

PAGE_BYTES = 4096


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Make writes beyond this size fail in this process, as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def hole_bytes(path: Path) -> int:
    """The number of bytes of a file for which the disk has no space allocated."""
    status = path.stat()
    return max(0, status.st_size - status.st_blocks * 512)


def numbers(path: Path) -> dict[str, float]:
    """The values that other processes read from a file."""
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}  # type: ignore[no-untyped-call]


def test_every_page_of_a_file_is_allocated(tmp_path: Path) -> None:
    """This applies to new and to grown files: writing to an unallocated page could be fatal."""
    file = AllocatedDict(str(tmp_path / "counter_1.db"))
    try:
        new = (tmp_path / "counter_1.db").stat().st_size
        assert hole_bytes(tmp_path / "counter_1.db") == 0
        for number in range(3000):
            file.write_value(f"a key of some length that fills the file, {number}", 1.0, 0.0)  # type: ignore[no-untyped-call]
    finally:
        file.close()  # type: ignore[no-untyped-call]

    assert (tmp_path / "counter_1.db").stat().st_size > new
    assert hole_bytes(tmp_path / "counter_1.db") == 0


def test_new_values_are_omitted_while_the_disk_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning is logged, and existing values are still updated."""
    caplog.set_level(logging.WARNING)
    path = tmp_path / "counter_1.db"
    file = RecoverableDict(str(path))
    file.write_value("first", 1.0, 0.0)
    names = [f"a number, {number}" * 10 for number in range(600)]
    with no_file_larger_than(path.stat().st_size):
        for name in names:
            file.write_value(name, 2.0, 0.0)
        assert file.read_value(names[-1]) == (2.0, 0.0)
        file.write_value("first", 3.0, 0.0)
    during = numbers(path)

    file.write_value(names[-1], 4.0, 0.0)
    file.close()

    assert during["first"] == 3.0
    assert names[-1] not in during
    assert numbers(path)[names[-1]] == 4.0
    assert len(caplog.records) == 1


def test_values_that_did_not_fit_are_stored_when_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that never changes again must not be missing forever."""
    path = tmp_path / "gauge_livesum_1.db"
    file = RecoverableDict(str(path))
    with no_file_larger_than(PAGE_BYTES):
        assert file.read_value("in flight") == (0.0, 0.0)
        file.write_value("state", 2.0, 0.0)
        assert not catch_up(tmp_path)
        assert file.read_value("state") == (2.0, 0.0)

    assert catch_up(tmp_path)
    file.close()

    assert numbers(path) == {"in flight": 0.0, "state": 2.0}
    assert len(caplog.messages) == 2


def test_a_deleted_file_is_created_again(tmp_path: Path) -> None:
    """Otherwise the values would go into the deleted file, which no process can read."""
    directory = tmp_path / "shared"
    directory.mkdir()
    file = RecoverableDict(str(directory / "counter_1.db"))
    file.write_value("first", 1.0, 0.0)
    file.write_value("second", 2.0, 0.0)
    shutil.rmtree(directory)
    directory.touch()
    file.write_value("first", 3.0, 0.0)
    assert not catch_up(directory)

    directory.unlink()
    assert catch_up(directory)
    file.write_value("second", 4.0, 0.0)
    file.close()

    assert numbers(directory / "counter_1.db") == {"first": 3.0, "second": 4.0}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_deleted_file_can_grow(tmp_path: Path, *, replaced: bool) -> None:
    """Until a new file takes its place, an application may add any number of values."""
    path = tmp_path / "counter_1.db"
    file = RecoverableDict(str(path))
    file.write_value("first", 1.0, 0.0)
    path.unlink()
    if replaced:
        path.touch()
    names = [f"a number, {number}" * 10 for number in range(600)]
    for name in names:
        file.write_value(name, 2.0, 0.0)

    assert catch_up(tmp_path)
    file.close()

    assert numbers(path) == {"first": 1.0, **dict.fromkeys(names, 2.0)}


def test_a_file_that_cannot_be_created_is_created_later(tmp_path: Path) -> None:
    """Neither the metric nor a request fails, and no incomplete file is left behind."""
    path = tmp_path / "counter_1.db"
    file = RecoverableDict(str(path))
    with no_file_larger_than(PAGE_BYTES):
        assert file.read_value("first") == (0.0, 0.0)
        file.write_value("first", 1.0, 0.0)
        assert path.stat().st_size == 0

    file.write_value("first", 2.0, 0.0)
    file.close()

    assert numbers(path) == {"first": 2.0}


def test_the_library_s_own_metrics_use_such_files() -> None:
    """This includes counters of other packages, which requests may increment."""
    library: Any = values

    assert library.MmapedDict is RecoverableDict
