"""The metric files of all workers: summing them, and archiving those of ended workers."""

import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from example_service.infra.metrics.shared.allocated import AllocatedDict
from example_service.infra.workers.shared_directory import directory_faults, locked

_LOCK: Final = "lock"
_WAIT_SECONDS: Final = 1.0


class SharedFiles(Collector):
    """A collector of the sums over all workers, including those that have ended.

    Args:
        directory: The directory of the files.
        own: Collectors of this worker, whose gauges are returned if the files have none of them.
    """

    def __init__(self, directory: Path, own: Iterable[Collector] = ()) -> None:
        self._directory = directory
        self._own = own

    def collect(self) -> Iterable[Metric]:
        """Return the current sums."""
        # Without the lock, counters that `archive` is moving may be read twice or not at all. That
        # is still better than waiting for a process that is stopped, and better than no metrics
        # where the directory has become read-only or was deleted.
        lock = locked(self._directory / _LOCK, exclusive=False, wait_seconds=_WAIT_SECONDS)
        with suppress(OSError), lock:
            return self._sums()
        return self._sums()

    def _sums(self) -> Iterable[Metric]:
        # A new file is empty for a moment, and the library cannot read an empty file.
        files = [path for path in self._directory.glob("*.db") if _size(path)]
        try:
            sums = _merged(files)
        except Exception:  # noqa: BLE001 - A damaged file raises almost anything.
            sums = _merged([path for path in files if not self._is_damaged(path)])
        else:
            directory_faults(self._directory).works("metrics")
        names = {family.name for family in sums}
        families = [family for each in self._own for family in each.collect()]
        # A counter of this worker alone would be below the sum, which looks like a restart.
        return sums + [
            family for family in families if family.type == "gauge" and family.name not in names
        ]

    def _is_damaged(self, path: Path) -> bool:
        """Whether a file cannot be read. It is removed then, and its worker writes a new one."""
        try:
            _merged([path])
        except Exception:  # noqa: BLE001 - See above.
            if _size(path):
                directory_faults(self._directory).failed("metrics", f"{path} is damaged")
            with suppress(OSError):
                path.unlink()
            return True
        return False


def archive(directory: Path, pid: int) -> None:
    """Remove the gauges of a worker that has ended, and keep its counters.

    The counters are added to those of all workers that ended before, in one file of each kind, so
    that scrapes do not become slower with every replaced worker.

    Raises:
        TimeoutError: Another process does not release the lock, because it is stopped.
    """
    with locked(directory / _LOCK, exclusive=True, wait_seconds=_WAIT_SECONDS):
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        for kind in ("counter", "histogram", "summary"):
            ended = directory / f"{kind}_{pid}.db"
            if _size(ended):
                try:
                    _add(ended, directory / f"{kind}_ended.db")
                finally:
                    # A file that cannot be read would make every later scrape fail.
                    ended.unlink()


def clear(directory: Path) -> None:
    """Remove all metric files."""
    for path in directory.glob("*.db"):
        path.unlink(missing_ok=True)


def _merged(files: Iterable[Path]) -> list[Metric]:
    return list(MultiProcessCollector.merge([str(path) for path in files]))  # type: ignore[no-untyped-call]


def _add(ended: Path, sums: Path) -> None:
    counted = list(MmapedDict.read_all_values_from_file(str(ended)))  # type: ignore[no-untyped-call]
    stored: Any = AllocatedDict(str(sums))
    try:
        for key, value, *_ in counted:
            stored.write_value(key, stored.read_value(key)[0] + value, 0.0)
    finally:
        stored.close()


def _size(path: Path) -> int:
    """The size of a metric file in bytes; 0 if it is missing or not a regular file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
