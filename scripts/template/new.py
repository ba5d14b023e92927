"""Create a project of your own from the template: a copy with another name.

    python -m scripts.template.new NAME DIR HISTORY

HISTORY is `keep` or `drop`: whether the copy has the commits of the template. Empty means `drop`.
"""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from scripts.template.project_name import RefusedError, parse_name, present_name
from scripts.template.rename import ROOT, format_and_stage, rename, run
from scripts.template.repository import git, require_clean

BRANCH: Final = "main"
REMOTE: Final = "template"


def make_directory(text: str, root: Path) -> Path:
    """Create the empty folder for a new project.

    Raises:
        RefusedError: If it is inside the template, is not empty, or cannot be created.
    """
    if not text:
        raise RefusedError("Say where to put it: make new NAME=orders DIR=../orders")
    directory = Path(text).expanduser().resolve()
    if directory.is_relative_to(root):
        raise RefusedError(f"DIR={text} is inside the template: choose a folder beside it.")
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise RefusedError(f"DIR={text} exists: choose a folder that does not, or an empty one.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"DIR={text} cannot be made: {error.strerror}.") from None
    return directory


def copy(root: Path, directory: Path, history: str) -> None:
    """Copy what is committed, with or without its history, and record where it came from.

    Args:
        root: The template.
        directory: The folder for the copy.
        history: `keep` or `drop`.

    Raises:
        RefusedError: If git cannot do it.
    """
    remotes = git(root, "remote").split()
    origin = git(root, "remote", "get-url", "origin").strip() if "origin" in remotes else str(root)
    if history == "keep":
        git(root, "clone", "--quiet", "--origin", REMOTE, str(root), str(directory))
        git(directory, "remote", "set-url", REMOTE, origin)
        git(directory, "checkout", "--quiet", "-B", BRANCH, "--no-track", "HEAD")
    else:
        git(root, "checkout-index", "--all", f"--prefix={directory}/")
        git(directory, "init", "--quiet", f"--initial-branch={BRANCH}")
        git(directory, "remote", "add", REMOTE, origin)
        git(directory, "add", "--all")


def new_project(text: str, directory_text: str, history: str, root: Path = ROOT) -> str:
    """Create a project from the template.

    Args:
        text: Its name.
        directory_text: Its folder.
        history: `keep`, `drop`, or nothing, which is `drop`.
        root: The template.

    Returns:
        What to do next.

    Raises:
        RefusedError: If an argument is invalid, or the template has uncommitted changes.
    """
    if history not in {"keep", "drop", ""}:
        raise RefusedError(f"HISTORY={history} is neither keep nor drop.")
    name = parse_name(text, root)
    present_name(root)
    require_clean(root)
    directory = make_directory(directory_text, root)
    try:
        copy(root, directory, history)
        rename(directory, name, git(root, "rev-parse", "HEAD").strip())
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    format_and_stage(directory)
    return (
        f"{name.title} is in {directory}. Begin with:\n\n    cd {shlex.quote(str(directory))}\n"
        f"    git commit -m 'Start {name.distribution}'\n    make run"
    )


if __name__ == "__main__":
    sys.exit(run(new_project, *sys.argv[1:]))
