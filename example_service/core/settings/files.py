"""Settings from files: `.env`, and a folder with one file for each secret.

Values are used literally. Variables are not expanded, and `#` starts a comment only at the start of
a line, so that a password may contain `$`, `#` and quotation marks.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from example_service.core.exceptions import SettingProblem, SettingsError

SECRETS_VARIABLE = "SECRETS_DIR"

# The names of other programs' variables may contain any character.
_LINE = re.compile(r"(?:export\s+)?([^\s=]+)\s*=\s*(.*)", re.DOTALL)
_LINE_BREAK = re.compile(r"\r\n?|\n")
_QUOTES = ("'", '"')


def read_env_file(path: Path) -> dict[str, str]:
    """Read the variables of an `.env` file, with their names in lower case.

    Quotation marks around a whole value are removed. Variables with an empty value are left out.

    Raises:
        SettingsError: The file exists and cannot be read, or a line is neither an assignment, a
            comment nor empty.
    """
    if not os.path.lexists(path):
        return {}
    lines = _LINE_BREAK.split(_text(path, path.name, "cannot be read"))
    values = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            # The text may be part of a secret, so it is not shown.
            problem = f"has a line {number} that is not NAME=VALUE; a value has no line breaks"
            raise SettingsError([SettingProblem(path.name, problem, "PORT=8000")])
        values[match[1].lower()] = _without_quotes(match[2])
    return {name: value for name, value in values.items() if value}


def read_secret_files(folder: str | None, is_setting: Callable[[str], bool]) -> dict[str, str]:
    """Read a folder whose files have the names of variables and contain their values.

    White space around a value, such as a trailing newline, is removed.

    Args:
        folder: The path of the folder; None if there is none.
        is_setting: Whether a name, in lower case, is one of our variables. What cannot be read
            under another name, such as a folder or a key store, is ignored.

    Raises:
        SettingsError: The folder or the file of a setting cannot be read.
    """
    if folder is None:
        return {}
    try:
        # Kubernetes, for example, keeps its own files in such folders under names with a dot.
        files = [path for path in sorted(Path(folder).iterdir()) if path.name[0] != "."]
    except OSError as error:
        raise _unreadable(SECRETS_VARIABLE, "cannot be read", error) from error
    values = {}
    for path in files:
        name = path.name.lower()
        try:
            text = _text(path, path.name.upper(), f"cannot be read from {SECRETS_VARIABLE}")
        except SettingsError:
            if is_setting(name):
                raise
        else:
            values[name] = text.strip()
    return {name: value for name, value in values.items() if value}


def _without_quotes(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES
    return value[1:-1] if is_quoted else value


def _text(path: Path, variable: str, problem: str) -> str:
    if path.is_fifo():
        # Opening it would wait for a program that writes to it.
        raise SettingsError([SettingProblem(variable, f"{problem}: it is a pipe")])
    try:
        # Some editors write a byte order mark.
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise _unreadable(variable, problem, error) from error


def _unreadable(variable: str, problem: str, error: OSError | UnicodeError) -> SettingsError:
    reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return SettingsError([SettingProblem(variable, f"{problem}: {reason}")])
