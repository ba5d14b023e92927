"""Files of metrics whose space is allocated before it is used.

prometheus_client maps its files into memory. If a disk is full when such a page is first written,
the kernel ends the process with SIGBUS. So the space is allocated first, where a full disk is an
ordinary `OSError`, and numbers without space are left out until there is some.
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
    """The library's file of numbers, allocated before it is mapped.

    Args:
        filename: Where the file is.

    Raises:
        OSError: From the constructor and from `write_value`, if there is no space left.
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
    """A file of numbers for `values.MultiProcessValue`, which leaves out what finds no space.

    Args:
        filename: Where the file is.
    """

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._file: AllocatedDict | None = None
        self._is_full = False

    def read_value(self, key: str) -> tuple[float, float]:
        """The stored number and its time; zeros if it finds no space."""
        try:
            return cast("tuple[float, float]", self._opened().read_value(key))
        except OSError as error:
            self._warn(error)
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Store a number, unless it finds no space."""
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
    """Have the library allocate the space of every file that it opens from now on."""
    library: Any = values
    library.MmapedDict = SpareDict


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _extend(path: Path, old_bytes: int, new_bytes: int) -> None:
    """Write zeros to the end of a file, or leave it as it was."""
    missing = new_bytes - old_bytes
    with path.open("ab", buffering=0) as file:
        try:
            written = file.write(bytes(missing))
        except OSError:
            written = 0
        if written < missing:
            file.truncate(old_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
