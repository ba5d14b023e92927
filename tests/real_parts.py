"""The real parts that some tests need: which of them this machine lacks, and what that means."""

import os
import shutil
from collections.abc import Iterator
from typing import NoReturn

import pytest

# Each program that tests start and the environment does not bring along, and how to get it.
HOW_TO_INSTALL = {
    "chromium": "`apt-get install chromium`, or `.venv/bin/playwright install chromium`",
    "prometheus": "`apt-get install prometheus`",
    "prometheus-alertmanager": "`apt-get install prometheus-alertmanager`",
    "promtool": "`apt-get install prometheus`",
}


def missing(why: str) -> NoReturn:
    """Skip the test with one line; under CI, where nothing may be skipped, fail it.

    Args:
        why: What is missing and how to get it.
    """
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def missing_programs() -> Iterator[str]:
    """One line for each program that is not on PATH: its name, and how to install it."""
    for program, how in HOW_TO_INSTALL.items():
        if shutil.which(program) is None:
            yield f"{program} is not on PATH, and some tests need it: {how}"
