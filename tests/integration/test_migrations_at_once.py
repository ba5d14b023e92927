"""Several processes that migrate one database at the same time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from example_service.core.settings import Settings
from example_service.migrations import head_revisions

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 240.0
PROCESSES = 3


def test_one_does_the_work_and_all_succeed(empty_database: Settings, tmp_path: Path) -> None:
    """Replicas that start together may each run the migration first."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": empty_database.database_url.get_secret_value(),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "example_service", "migrate"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    outputs = [process.communicate(timeout=DEADLINE_SECONDS) for process in processes]

    assert [process.returncode for process in processes] == [0] * PROCESSES, outputs
    assert "".join(errors for _, errors in outputs) == ""
    lines = sorted(re.sub(r"\w+\+\w+://\S+", "DATABASE", output) for output, _ in outputs)
    (head,) = head_revisions()
    assert lines == [
        f"Migrated DATABASE from nothing to {head}.\n",
        *[f"The schema of DATABASE is up to date ({head}).\n"] * (PROCESSES - 1),
    ]
