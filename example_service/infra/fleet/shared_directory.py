"""The directory in which the workers of one machine meet.

It is the one that prometheus_client needs for metrics of several processes anyway:
`PROMETHEUS_MULTIPROC_DIR`.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

_RETRY_SECONDS: Final = 0.002


def shared_directory() -> Path | None:
    """Where the workers of this service meet; None in a process that is alone."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given) if given else None


@contextmanager
def locked(path: Path, *, exclusive: bool, wait_seconds: float | None = None) -> Iterator[None]:
    """Lock a file between processes until the end of the block, or of the process.

    Args:
        path: The file, created if it does not exist.
        exclusive: Whether no other process may have the lock; otherwise all may that do not ask
            for an exclusive one.
        wait_seconds: How long to wait for it; None for no limit.

    Raises:
        TimeoutError: Another process had the lock all the time.
        OSError: The file cannot be created.
    """
    if sys.platform == "win32":
        yield
        return
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    # Closing the file releases the lock.
    with path.open("a") as file:
        if wait_seconds is None:
            fcntl.flock(file, kind)
        else:
            _lock_in_time(file.fileno(), kind, wait_seconds)
        yield


def replace_file(path: Path, text: str) -> None:
    """Replace a file's contents: readers see the old or the new one, never a part.

    Raises:
        OSError: It cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def clear_directory(directory: Path) -> None:
    """Remove what the fleet of an earlier run left behind.

    Raises:
        OSError: It cannot be removed.
    """
    for pattern in ("circuits*", "member.*", "report.*"):
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
