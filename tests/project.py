"""The project's folder, and commands that are run in it."""

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to completion, with additional environment variables."""
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, check=False
    )


def make(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make, silently because make within make would print the directory that it enters."""
    return run("make", "--no-print-directory", *arguments, cwd=cwd, **environ)
