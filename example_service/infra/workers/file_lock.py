"""A lock between processes, held on a file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

if sys.platform != "win32":
    import fcntl

_POLL_SECONDS: Final = 0.01


@contextmanager
def locked(path: Path, *, exclusive: bool, wait_seconds: float | None = None) -> Iterator[None]:
    """Wait for the lock, and hold it until the end of the block, or of the process.

    Args:
        path: The file, made if need be.
        exclusive: Whether nobody else may hold it; otherwise all may who do not ask for that.
        wait_seconds: How long to wait at most; a process that is stopped may hold it for ever.

    Raises:
        TimeoutError: If others have held it for all that time.
    """
    if sys.platform == "win32":
        yield
        return
    with path.open("a") as file:
        # Closing the file gives the lock back.
        _take(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, wait_seconds)
        yield


def _take(file: IO[str], kind: int, wait_seconds: float | None) -> None:
    if wait_seconds is None:
        fcntl.flock(file, kind)
        return
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{file.name} is locked by another process") from None
            time.sleep(_POLL_SECONDS)
        else:
            return
