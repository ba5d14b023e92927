"""Faults of a directory that running workers create again."""

import shutil
from contextlib import suppress
from pathlib import Path


def delete(directory: Path) -> None:
    """Delete a directory with its files at once."""
    gone = directory.with_name("gone")
    directory.rename(gone)
    shutil.rmtree(gone)


def replace_by_file(directory: Path) -> None:
    """Put a file in the place of a directory, before a worker creates the directory again."""
    while not directory.is_file():
        delete(directory)
        with suppress(FileExistsError):
            directory.touch(exist_ok=False)
