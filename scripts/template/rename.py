"""Rename the project: its package, distribution, titles, and everything named after it.

    python -m scripts.template.rename NAME

Everything is changed in place and staged, and nothing is committed: `git reset --hard` undoes it.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.template.project_name import Name, RefusedError, parse_name, present_name
from scripts.template.repository import git, require_clean, tracked_files

ROOT: Final = Path(__file__).resolve().parents[2]
RECORD: Final = ".template.json"
"""The file of a renamed project that says from which commit of the template it was made."""

_LONG_LINES: Final = '    "E501",    # The name of the project makes some texts longer.\n'


def rename(root: Path, name: Name, commit: str) -> None:
    """Replace the name in the contents and names of all files that git tracks.

    Args:
        root: The project.
        name: Its new name.
        commit: The commit of the template from which the files come, unless it is recorded.
    """
    old = present_name(root)
    for file in tracked_files(root):
        _rename_in(root / file, old, name)
        new_file = old.replaced_by(name, file.encode()).decode()
        if new_file != file:
            (root / new_file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).rename(root / new_file)
            remove_if_empty(root, (root / file).parent)
    if len(name.package) > len(old.package):
        _allow_long_lines(root / "pyproject.toml")
    if not (root / RECORD).exists():
        (root / RECORD).write_text(f"{json.dumps({'commit': commit})}\n", encoding="utf-8")


def _rename_in(file: Path, old: Name, name: Name) -> None:
    contents = file.read_bytes()
    is_binary = b"\0" in contents
    renamed = contents if is_binary else old.replaced_by(name, contents)
    if renamed != contents:
        file.write_bytes(renamed)


def _allow_long_lines(pyproject: Path) -> None:
    """Do not check lines that the formatter cannot break, such as strings with the longer name."""
    text = pyproject.read_text(encoding="utf-8")
    longer = re.sub(r"(?m)^ignore = \[\n", lambda found: found[0] + _LONG_LINES, text, count=1)
    pyproject.write_text(longer, encoding="utf-8")


def remove_if_empty(root: Path, folder: Path) -> None:
    """Remove a folder, and its parents, if only compiled Python files are left in it."""
    while folder != root and all(path.name == "__pycache__" for path in folder.iterdir()):
        shutil.rmtree(folder)
        folder = folder.parent


def format_and_stage(root: Path) -> None:
    """Format what has been changed, and stage all of it.

    Raises:
        RefusedError: If the formatter's environment cannot be built.
    """
    sys.stderr.write("Formatting, with the project's own environment\n")
    done = subprocess.run(["make", "--no-print-directory", "format"], cwd=root, check=False)  # noqa: S607
    git(root, "add", "--all")
    if done.returncode != 0:
        raise RefusedError("Everything is changed; what is missing is `make format`.")


def rename_project(text: str, root: Path = ROOT) -> str:
    """Rename the project in a folder.

    Returns:
        What to do next.

    Raises:
        RefusedError: If the name is invalid, or the project has uncommitted changes.
    """
    name = parse_name(text, root)
    old = present_name(root)
    require_clean(root)
    rename(root, name, git(root, "rev-parse", "HEAD").strip())
    format_and_stage(root)
    return (
        f"{old.distribution} is {name.distribution} now. `git diff --cached` shows what has "
        "changed, `git commit` keeps it, `git reset --hard` undoes it."
    )


def run(command: Callable[..., str], *arguments: str) -> int:
    """Run the command line and print the result. Returns the exit status."""
    try:
        print(command(*arguments))  # noqa: T201
    except RefusedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(rename_project, *sys.argv[1:]))
