"""Directories for temporary files that have old files in them or cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service_process import DEADLINE_SECONDS, ROOT, Service, get, kill

pytestmark = pytest.mark.integration

DEAD_PROCESS = """
from prometheus_client import Counter
Counter("left_over_total", "Of an earlier process").inc(7)
"""


def test_one_worker_ignores_the_metrics_of_an_earlier_process(tmp_path: Path) -> None:
    """Without other workers, it leaves the directory of shared metrics alone."""
    directory = tmp_path / "metrics"
    directory.mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(directory), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", DEAD_PROCESS], check=True, env=environment)
    service = Service(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(directory))
    try:
        metrics = get(f"{service.url}/metrics").text
    finally:
        kill(service)

    assert "circuit_breaker_state" in metrics
    assert "left_over_total" not in metrics


def test_several_workers_need_a_directory_that_can_be_written(tmp_path: Path) -> None:
    """The error names the variable and shows no traceback."""
    program = (
        "import sys, tempfile\n"
        "def refuse(): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile.gettempdir = refuse\n"
        "from example_service.cli import main\n"
        "sys.exit(main(['serve', '--workers', '2', '--port', '0']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )

    assert done.returncode == 2
    assert "TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr
