"""Metric files whose disk space is allocated in advance.

prometheus_client maps its files into memory. If the disk is full when a page is first written, the
kernel kills the process with SIGBUS. Allocating the space first raises an ordinary `OSError`
instead, and values that do not fit are left out until there is space. If the file is deleted, the
library would keep writing into the deleted file. The values move to a new one instead.
"""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from example_service.infra.workers.shared_directory import directory_faults, make_directory

_FIRST_BYTES: Final = 65_536


class AllocatedDict(MmapedDict):
    """The metric file of prometheus_client, with its space allocated before it is mapped.

    Args:
        filename: The path of the file.

    Raises:
        OSError: The disk is full. Raised by the constructor and by `write_value`.
    """

    def __init__(self, filename: str) -> None:
        with Path(filename).open("ab") as file:
            if not _size(file.fileno()):
                _extend(file.fileno(), 0, _FIRST_BYTES)
        super().__init__(filename)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        # The key, its length, at most eight bytes of padding, and two floats.
        needed = self._used + len(key.encode()) + 4 + 8 + 16
        # By its descriptor, because another file may have taken the place of a deleted one.
        file = self._f.fileno()
        while needed > (size := _size(file)):
            _extend(file, size, 2 * size)
        super()._init_value(key)  # type: ignore[no-untyped-call]


class RecoverableDict:
    """A metric file for `values.MultiProcessValue` that survives a full or deleted directory.

    Values that cannot be stored now are stored by `catch_up`. Thread-safe.

    Args:
        filename: The path of the file.
    """

    def __init__(self, filename: str) -> None:
        self.path = Path(filename)
        self._lock = threading.Lock()
        self._file: AllocatedDict | None = None
        self._opened_inode: tuple[int, int] | None = None
        self._values: dict[str, tuple[float, float]] = {}
        self._missing: set[str] = set()
        _files.append(self)

    def read_value(self, key: str) -> tuple[float, float]:
        """Return the value and its timestamp; zeros if the value is new."""
        with self._lock:
            if key not in self._values:
                self._values[key] = self._stored(key)
            return self._values[key]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Store a value, now or later."""
        with self._lock:
            self._values[key] = value, timestamp
            try:
                self._opened().write_value(key, value, timestamp)
            except OSError as error:
                self._note_missing(key, error)
            else:
                self._missing.discard(key)

    def catch_up(self) -> bool:
        """Store the values that are missing, in a new file if the old one was deleted.

        Returns:
            Whether all values are stored.
        """
        faults = directory_faults(self.path.parent)
        with self._lock:
            try:
                if self._opened_inode != _inode(self.path):
                    self._replace()
                for key in list(self._missing):
                    self._opened().write_value(key, *self._values[key])
                    self._missing.remove(key)
            except OSError as error:
                faults.failed(self.path.name, error)
                return False
        faults.works(self.path.name)
        return True

    def close(self) -> None:
        """Close the file."""
        with suppress(ValueError):
            _files.remove(self)
        if self._file is not None:
            self._file.close()  # type: ignore[no-untyped-call]
            self._file = None

    def _stored(self, key: str) -> tuple[float, float]:
        try:
            return cast("tuple[float, float]", self._opened().read_value(key))
        except OSError as error:
            self._note_missing(key, error)
            return 0.0, 0.0

    def _note_missing(self, key: str, error: OSError) -> None:
        self._missing.add(key)
        directory_faults(self.path.parent).failed(self.path.name, error)

    def _opened(self) -> Any:
        if self._file is None:
            self._file = AllocatedDict(str(self.path))
            self._opened_inode = _inode(self.path)
        return self._file

    def _replace(self) -> None:
        """Open a new file. If this fails, the deleted one stays open."""
        make_directory(self.path.parent)
        self.path.unlink(missing_ok=True)
        deleted, self._file = self._file, None
        try:
            self._opened()
        except OSError:
            self._file = deleted
            raise
        self._missing.update(self._values)
        if deleted is not None:
            deleted.close()  # type: ignore[no-untyped-call]


_files: Final = list[RecoverableDict]()
"""The open files of this process."""


def catch_up(directory: Path) -> bool:
    """Store the values of this process that could not be stored in a directory.

    Returns:
        Whether all values are stored.
    """
    are_stored = [file.catch_up() for file in list(_files) if file.path.parent == directory]
    return all(are_stored)


def allocate_before_use() -> None:
    """Make prometheus_client use `RecoverableDict` for all files that it opens from now on."""
    library: Any = values
    library.MmapedDict = RecoverableDict


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _size(file: int) -> int:
    return os.fstat(file).st_size


def _extend(file: int, old_bytes: int, new_bytes: int) -> None:
    """Append zeros to a file. If the disk is full, the file is left unchanged."""
    missing = new_bytes - old_bytes
    try:
        written = os.write(file, bytes(missing))
    except OSError:
        written = 0
    if written < missing:
        os.ftruncate(file, old_bytes)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
