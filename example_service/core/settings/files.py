"""Settings from files: `.env`, and a folder with one file for each secret.

Values are used literally. Variables are not expanded, and `#` starts a comment only at the start of
a line, so that a password may contain `$`, `#` and quotation marks.
"""

import re
from pathlib import Path

from example_service.core.exceptions import SettingProblem, SettingsError

SECRETS_VARIABLE = "SECRETS_DIR"

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")
_QUOTES = ("'", '"')


def read_env_file(path: Path) -> dict[str, str]:
    """Read the variables of an `.env` file, with their names in lower case.

    Quotation marks around a whole value are removed. Variables with an empty value are left out.

    Raises:
        SettingsError: The file exists and cannot be read.
    """
    if not path.is_file():
        return {}
    matches = (_LINE.fullmatch(line.strip()) for line in _text(path, path.name).splitlines())
    values = {match[1].lower(): _without_quotes(match[2]) for match in matches if match}
    return {name: value for name, value in values.items() if value}


def read_secret_files(folder: str | None) -> dict[str, str]:
    """Read a folder whose files have the names of variables and contain their values.

    White space around a value, such as a trailing newline, is removed.

    Args:
        folder: The path of the folder; None if there is none.

    Raises:
        SettingsError: The folder or a file cannot be read.
    """
    if folder is None:
        return {}
    try:
        # Kubernetes, for example, keeps its own files in such folders under names with a dot.
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
        # Some editors write a byte order mark.
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise _unreadable(variable, error) from error


def _unreadable(variable: str, error: OSError | UnicodeError) -> SettingsError:
    reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
    return SettingsError([SettingProblem(variable, f"cannot be read: {reason}")])
