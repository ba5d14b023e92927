"""Reading a text file line by line."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

MAX_LINE_LENGTH: Final = 65_536
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_GZIP: Final = b"\x1f\x8b"


class RecordingError(Exception):
    """A file cannot be replayed. The message says where the problem is and what to do about it.

    Args:
        path: The path of the file.
        line: The number of the line, from 1; None if the problem concerns the whole file.
        problem: What is wrong and how to fix it.
    """

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        where = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {problem}")


def text_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """Yield each line with its line ending. Only one line is in memory at a time.

    Args:
        path: The path of the file, for errors.
        file: The file, opened in binary mode at its beginning.

    Raises:
        RecordingError: The file is empty, or a line is too long or not UTF-8 text.
    """
    number = 0
    for number, raw in enumerate(iter(partial(file.readline, MAX_LINE_LENGTH + 1), b""), 1):
        line = raw
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            _refuse_other_kinds(path, line)
        if len(line) > MAX_LINE_LENGTH:
            raise RecordingError(
                path, number, f"the line is longer than {MAX_LINE_LENGTH:,} bytes; is this a log?"
            )
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise RecordingError(path, number, "this is not UTF-8 text; convert the file") from None
        if "\0" in text:
            raise RecordingError(path, number, "this is a binary file; give a text file")
        yield text
    if number == 0:
        raise RecordingError(path, None, "the file is empty; record some calls first")


def _refuse_other_kinds(path: Path, line: bytes) -> None:
    if line.startswith(_GZIP):
        raise RecordingError(path, 1, "the file is compressed; unpack it with gunzip first")
    if line.startswith(_UTF_16):
        raise RecordingError(path, 1, "the file is UTF-16 or UTF-32; save it as UTF-8")
