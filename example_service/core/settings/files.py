"""Settings from files: `.env`, and a folder with one file for each secret.

Values arrive as they are written. Nothing in them is expanded, and a `#` begins a comment only at
the beginning of a line, so that a password may contain `$`, `#` and quotation marks.
"""

import re
from pathlib import Path

from example_service.core.exceptions import SettingProblem, SettingsError

SECRETS_VARIABLE = "SECRETS_DIR"

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")
_QUOTES = ("'", '"')


def read_env_file(path: Path) -> dict[str, str]:
    """Read the variables of an `.env` file, by their names in lower case.

    A pair of quotation marks around the whole value is left out, as are empty values.

    Raises:
        SettingsError: If the file is there and cannot be read.
    """
    if not path.is_file():
        return {}
    matches = (_LINE.fullmatch(line.strip()) for line in _text(path, path.name).splitlines())
    values = {match[1].lower(): _without_quotes(match[2]) for match in matches if match}
    return {name: value for name, value in values.items() if value}


def read_secret_files(folder: str | None) -> dict[str, str]:
    """Read the files of a folder, each named like the variable whose value it has.

    White space around the value, such as a line break at its end, is no part of it.

    Args:
        folder: Path of the folder, None where there is none.

    Raises:
        SettingsError: If the folder or a file cannot be read.
    """
    if folder is None:
        return {}
    try:
        # Orchestrators keep what they need themselves in names that begin with a dot.
        files = [path for path in sorted(Path(folder).iterdir()) if path.name[0] != "."]
    except OSError as error:
        raise _unreadable(SECRETS_VARIABLE, error) from error
    values = {
        path.name.lower(): _text(path, SECRETS_VARIABLE).strip() for path in files if path.is_file()
    }
    return {name: value for name, value in values.items() if value}


def _without_quotes(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES
    return value[1:-1] if is_quoted else value


def _text(path: Path, variable: str) -> str:
    try:
        # Some editors begin a file with a byte order mark.
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise _unreadable(variable, error) from error


def _unreadable(variable: str, error: OSError | UnicodeError) -> SettingsError:
    reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
    return SettingsError([SettingProblem(variable, f"cannot be read: {reason}")])
