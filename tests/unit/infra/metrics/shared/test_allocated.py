"""Files of metrics whose space is allocated before it is used: a full disk costs metrics alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from example_service.infra.metrics.shared.allocated import AllocatedDict, SpareDict

resource = pytest.importorskip("resource")

PAGE_BYTES = 4096


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Have this process get an error where a file would grow further, as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def hole_bytes(path: Path) -> int:
    """How much of a file has no space on the disk yet."""
    status = path.stat()
    return max(0, status.st_size - status.st_blocks * 512)


def numbers(path: Path) -> dict[str, float]:
    """What other processes read in a file."""
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}  # type: ignore[no-untyped-call]


def test_no_page_of_a_file_is_without_space(tmp_path: Path) -> None:
    """Neither of a new file nor of one that grew: the first write to such a page could be fatal."""
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


def test_numbers_without_space_are_left_out_until_there_is_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning tells of it, and the others stay as they are."""
    caplog.set_level(logging.WARNING)
    path = tmp_path / "counter_1.db"
    file = SpareDict(str(path))
    file.write_value("first", 1.0, 0.0)
    names = [f"a number, {number}" * 10 for number in range(600)]
    with no_file_larger_than(path.stat().st_size):
        for name in names:
            file.write_value(name, 2.0, 0.0)
        assert file.read_value(names[-1]) == (0.0, 0.0)
        file.write_value("first", 3.0, 0.0)
    during = numbers(path)

    file.write_value(names[-1], 4.0, 0.0)
    file.close()

    assert during["first"] == 3.0
    assert names[-1] not in during
    assert numbers(path)[names[-1]] == 4.0
    assert len(caplog.records) == 1


def test_a_file_that_finds_no_space_at_all_is_made_later(tmp_path: Path) -> None:
    """Neither the metric nor a request that counts in it fails, and nothing is left on the disk."""
    path = tmp_path / "counter_1.db"
    file = SpareDict(str(path))
    with no_file_larger_than(PAGE_BYTES):
        assert file.read_value("first") == (0.0, 0.0)
        file.write_value("first", 1.0, 0.0)
        assert path.stat().st_size == 0

    file.write_value("first", 2.0, 0.0)
    file.close()

    assert numbers(path) == {"first": 2.0}


def test_the_library_s_own_metrics_use_such_files() -> None:
    """Also those of other packages, whose counters an application increments in its requests."""
    library: Any = values

    assert library.MmapedDict is SpareDict
