"""The git commands that the scripts use."""

import os
import subprocess
from pathlib import Path

from scripts.template.project_name import RefusedError


def git(root: Path, *arguments: str) -> str:
    """Run git in a folder, even if a hook has set another repository in the environment.

    Returns:
        Its output.

    Raises:
        RefusedError: If it fails.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=root, env=environ, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise RefusedError("This needs git, which is not on PATH.") from None
    if done.returncode != 0:
        raise RefusedError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def tracked_files(root: Path) -> list[str]:
    """The names of the files that git tracks, relative to the folder."""
    return git(root, "ls-files", "-z").split("\0")[:-1]


def require_clean(root: Path) -> None:
    """Refuse to change files unless git can restore them.

    Raises:
        RefusedError: If the folder is not a repository of its own, or has uncommitted changes.
    """
    if not (root / ".git").exists():
        raise RefusedError(
            f"{root} is not a git repository, so git could not undo this. Clone the template, or "
            "run: git init && git add --all && git commit -m 'Start from the template'"
        )
    if changes := git(root, "status", "--porcelain").splitlines():
        listed = "\n".join(["", *changes[:5], *(["..."] if changes[5:] else [])])
        raise RefusedError(f"Commit or stash your changes first, then git can undo this:{listed}")
