"""The files in which workers keep their metrics: read as sums, put away when a worker has ended."""

import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from example_service.infra.fleet.shared_directory import locked
from example_service.infra.metrics.shared.allocated import AllocatedDict

_LOCK: Final = "lock"
_WAIT_SECONDS: Final = 1.0


class SharedFiles(Collector):
    """Adds up what all workers, living and ended, have in their files.

    Args:
        directory: Where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """The sums as of now."""
        # Counters that move meanwhile would be seen twice, or not at all. That is still better than
        # to wait for a process that is stopped.
        lock = locked(self._directory / _LOCK, exclusive=False, wait_seconds=_WAIT_SECONDS)
        with suppress(TimeoutError), lock:
            return self._sums()
        return self._sums()

    def _sums(self) -> Iterable[Metric]:
        # A file is empty for a moment after its worker made it; the library cannot read that.
        files = [str(path) for path in self._directory.glob("*.db") if _size(path)]
        return MultiProcessCollector.merge(files)  # type: ignore[no-any-return,no-untyped-call]


def put_away(directory: Path, pid: int) -> None:
    """Remove the gauges of a worker that has ended, and keep what it counted.

    Its counters join those of all workers that ended before, in one file of each kind: scrapes do
    not grow with every worker that was ever replaced.

    Raises:
        TimeoutError: If a process that reads them does not end, because it is stopped.
    """
    with locked(directory / _LOCK, exclusive=True, wait_seconds=_WAIT_SECONDS):
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        for kind in ("counter", "histogram", "summary"):
            ended = directory / f"{kind}_{pid}.db"
            if _size(ended):
                try:
                    _add(ended, directory / f"{kind}_ended.db")
                finally:
                    # One that cannot be read would spoil every scrape from now on.
                    ended.unlink()


def clear(directory: Path) -> None:
    """Remove every file of metrics."""
    for path in directory.glob("*.db"):
        path.unlink(missing_ok=True)


def _add(ended: Path, sums: Path) -> None:
    counted = list(MmapedDict.read_all_values_from_file(str(ended)))  # type: ignore[no-untyped-call]
    stored: Any = AllocatedDict(str(sums))
    try:
        for key, value, *_ in counted:
            stored.write_value(key, stored.read_value(key)[0] + value, 0.0)
    finally:
        stored.close()


def _size(path: Path) -> int:
    """The size of a file of metrics; 0 if there is none, or a link to somewhere else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
