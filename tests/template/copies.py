"""Copies of the project that tests change and check, using this project's environment."""

import os
import subprocess
import sys
from pathlib import Path

from scripts.template.repository import git

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent


def copy_project(folder: Path) -> None:
    """Copy what is committed, or would be with `git add --all`, into a new repository."""
    folder.mkdir()
    names = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
            (folder / name).chmod((ROOT / name).stat().st_mode)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")


def run_in(folder: Path, program: str, *arguments: str) -> None:
    """Run a program of this environment in a copy; it must succeed."""
    done = subprocess.run(
        [PROGRAMS / program, *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
