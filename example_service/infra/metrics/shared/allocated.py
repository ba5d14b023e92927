"""Metric files whose disk space is allocated in advance.

prometheus_client maps its files into memory. If the disk is full when a page is first written, the
kernel kills the process with SIGBUS. Allocating the space first raises an ordinary `OSError`
instead, and values that do not fit are left out until there is space.
"""

import errno
import logging
import os
from pathlib import Path
from typing import Any, Final, cast

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

_FIRST_BYTES: Final = 65_536


class AllocatedDict(MmapedDict):
    """The metric file of prometheus_client, with its space allocated before it is mapped.

    Args:
        filename: The path of the file.

    Raises:
        OSError: The disk is full. Raised by the constructor and by `write_value`.
    """

    def __init__(self, filename: str) -> None:
        self._path = Path(filename)
        if not _size(self._path):
            _extend(self._path, 0, _FIRST_BYTES)
        super().__init__(filename)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        # The key, its length, at most eight bytes of padding, and two floats.
        needed = self._used + len(key.encode()) + 4 + 8 + 16
        while needed > (size := _size(self._path)):
            _extend(self._path, size, 2 * size)
        super()._init_value(key)  # type: ignore[no-untyped-call]


class SpareDict:
    """A metric file for `values.MultiProcessValue` that drops values while the disk is full.

    Args:
        filename: The path of the file.
    """

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._file: AllocatedDict | None = None
        self._is_full = False

    def read_value(self, key: str) -> tuple[float, float]:
        """Return the stored value and its timestamp; zeros if the disk is full."""
        try:
            return cast("tuple[float, float]", self._opened().read_value(key))
        except OSError as error:
            self._warn(error)
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Store a value, unless the disk is full."""
        try:
            self._opened().write_value(key, value, timestamp)
        except OSError as error:
            self._warn(error)
        else:
            self._is_full = False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()  # type: ignore[no-untyped-call]
            self._file = None

    def _opened(self) -> Any:
        if self._file is None:
            self._file = AllocatedDict(self._filename)
        return self._file

    def _warn(self, error: OSError) -> None:
        """Log the first of several failures in a row."""
        if not self._is_full:
            self._is_full = True
            logger.warning(
                "There is no space for some metrics; they are missing until there is",
                extra={"file": self._filename, "reason": error.strerror},
            )


def allocate_before_use() -> None:
    """Make prometheus_client use `SpareDict` for all files that it opens from now on."""
    library: Any = values
    library.MmapedDict = SpareDict


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _extend(path: Path, old_bytes: int, new_bytes: int) -> None:
    """Append zeros to a file. If the disk is full, the file is left unchanged."""
    missing = new_bytes - old_bytes
    with path.open("ab", buffering=0) as file:
        try:
            written = file.write(bytes(missing))
        except OSError:
            written = 0
        if written < missing:
            file.truncate(old_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
