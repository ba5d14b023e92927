"""Run scenes of the dashboard in their own processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.service_process import ROOT


@contextmanager
def playing(scene: str, directory: Path, **variables: str) -> Iterator[str]:
    """Serve a scene for the length of the block, and return its URL."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(directory),
        "DATABASE_URL": f"sqlite:///{directory / 'scene.sqlite3'}",
        "LOG__LEVEL": "CRITICAL",
        "PAYMENTS__WORKER": "false",
        **variables,
    }
    with (
        (directory / "scene.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.dashboard.scenes", scene],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url, (directory / "scene.log").read_text()
        yield url
        process.stdin.close()
        process.wait(60)
