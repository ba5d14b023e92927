"""Clocks can be shifted by up to two days, and faults reintroduced."""

import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from tests.chaos.__main__ import FAULT_NAMES
from tests.chaos.clocks import MAX_SKEW_SECONDS, faketime_library, wrong_clocks
from tests.chaos.service import ROOT
from tests.real_parts import missing


def test_the_same_seed_draws_the_same_clocks() -> None:
    """They are ahead and behind by minutes and by days."""
    first, again = (list(islice(wrong_clocks(Path("lib"), "7"), 100)) for _ in range(2))
    skews = [float(variables["FAKETIME"]) for variables in first]

    assert first == again
    assert all(abs(skew) <= MAX_SKEW_SECONDS for skew in skews)
    assert min(skews) < -86_400
    assert max(skews) > 86_400


def test_without_the_library_clocks_are_right() -> None:
    """No library is preloaded."""
    assert next(wrong_clocks(None, "7")) == {}


def test_a_process_sees_the_wrong_time() -> None:
    """The wall clock is wrong, but seconds have their real length."""
    library = faketime_library()
    if library is None:
        missing("libfaketime is not installed")
    variables = next(wrong_clocks(library, "7"))
    program = "import time; print(time.time(), time.monotonic())"
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    believed, passed = map(float, output.split())

    assert believed - time.time() == pytest.approx(float(variables["FAKETIME"]), abs=60)
    assert 0 <= time.monotonic() - passed < 60


@pytest.mark.integration
@pytest.mark.parametrize("fault", FAULT_NAMES)
def test_each_fault_can_be_reintroduced(fault: str) -> None:
    """A process that starts with a fault has it and prints nothing."""
    ended = subprocess.run(
        [sys.executable, "-c", "import sitecustomize; print(sitecustomize.__file__)"],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/chaos/faults'}",
            "CHAOS_FAULT": fault,
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "tests/chaos/faults" in ended.stdout
