"""A lock between processes: whoever holds a file, holds what it stands for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Wait for the lock, and hold it until the end of the block, or of the process.

    Args:
        path: The file, made if need be.
        exclusive: Whether nobody else may hold it; otherwise all may who do not ask for that.
    """
    if sys.platform == "win32":
        yield
        return
    with path.open("a") as file:
        # Closing the file gives the lock back.
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
