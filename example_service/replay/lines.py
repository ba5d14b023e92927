"""The lines of a file, one at a time, as text."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

LONGEST_LINE: Final = 65_536
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_GZIP: Final = b"\x1f\x8b"


class RecordingError(Exception):
    """A file cannot be replayed. The message says where and what to do about it.

    Args:
        path: The file.
        line: The line in it, from 1; None if the whole file is meant.
        problem: What is wrong and how to put it right.
    """

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        where = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {problem}")


def text_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """Each line with its end, of which memory never holds more than one.

    Args:
        path: Named in errors.
        file: What is read, from its beginning.

    Raises:
        RecordingError: If a line is no text.
    """
    number = 0
    for number, raw in enumerate(iter(partial(file.readline, LONGEST_LINE + 1), b""), 1):
        line = raw
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            _refuse_other_kinds(path, line)
        if len(line) > LONGEST_LINE:
            raise RecordingError(
                path, number, f"the line is longer than {LONGEST_LINE:,} bytes; is this a log?"
            )
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise RecordingError(path, number, "this is no UTF-8 text; convert the file") from None
        if "\0" in text:
            raise RecordingError(path, number, "this is a binary file; give a text file")
        yield text
    if number == 0:
        raise RecordingError(path, None, "the file is empty; record some calls first")


def _refuse_other_kinds(path: Path, line: bytes) -> None:
    if line.startswith(_GZIP):
        raise RecordingError(path, 1, "the file is compressed; unpack it with gunzip first")
    if line.startswith(_UTF_16):
        raise RecordingError(path, 1, "the file is UTF-16; save it as UTF-8")
