"""The directory that the workers of one machine share.

It is `PROMETHEUS_MULTIPROC_DIR`, which prometheus_client needs anyway to combine the metrics of
several processes.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from example_service.core.fault_log import FaultLog

if sys.platform != "win32":
    import fcntl

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

_RETRY_SECONDS: Final = 0.002


def shared_directory() -> Path | None:
    """The directory that the workers of this service share; None if there is only one process."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given) if given else None


@cache
def directory_faults(directory: Path) -> FaultLog:
    """The fault log of a directory for all parts of this process that use it."""
    return FaultLog(
        f"This process cannot use the shared directory {directory}: %s. "
        "It works on its own until it can.",
        f"This process can use the shared directory {directory} again.",
    )


def make_directory(directory: Path) -> None:
    """Create the directory if it is missing, for example because it was deleted.

    Raises:
        OSError: It cannot be created, or other users could change its contents.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_directory(directory)


def check_directory(directory: Path) -> None:
    """Check that only the user of this process can change the contents of a directory.

    Raises:
        OSError: Other users could, or this process could not, or it does not exist.
    """
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise PermissionError(f"{directory} is a symbolic link")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write to {directory}; chmod go-w")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be written to")


@contextmanager
def locked(path: Path, *, exclusive: bool, wait_seconds: float | None = None) -> Iterator[None]:
    """A lock between processes, held until the end of the block. It has no effect on Windows.

    Args:
        path: The lock file, created if it does not exist.
        exclusive: Whether to take an exclusive lock; otherwise a shared one.
        wait_seconds: How long to wait for the lock, in seconds; None for no limit.

    Raises:
        TimeoutError: Other processes did not release the lock in time.
        OSError: The file cannot be created, or is a symbolic link or a pipe.
    """
    if sys.platform == "win32":
        yield
        return
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    # Closing the file releases the lock.
    with open(path, "a", opener=_open_file) as file:
        if wait_seconds is None:
            fcntl.flock(file, kind)
        else:
            _lock_in_time(file.fileno(), kind, wait_seconds)
        yield


def replace_file(path: Path, text: str) -> None:
    """Replace the contents of a file atomically: readers see the old or the new contents.

    Raises:
        OSError: The file cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(new, "w", opener=_open_file) as file:
            file.write(text)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _open_file(path: str, flags: int) -> int:
    """Open a file, but follow no symbolic link, and do not wait for the reader of a pipe."""
    # Windows has neither flag.
    safely = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags | safely, 0o666)


def clear_directory(directory: Path) -> None:
    """Remove the files that an earlier run left behind, except for those of its metrics.

    Raises:
        OSError: A file cannot be removed.
    """
    for pattern in ("circuits*", "member.*", "report.*", "lock"):
        for left_over in directory.glob(pattern):
            left_over.unlink(missing_ok=True)


def _lock_in_time(file: int, kind: int, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("another process does not release the lock") from None
            time.sleep(_RETRY_SECONDS)
        else:
            return
