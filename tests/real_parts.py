"""The real parts that some tests need: which of them this machine lacks, and what that means."""

import os
import shutil
from collections.abc import Iterator
from typing import NoReturn

import pytest

# Each program that tests start and that is not in the environment, and how to get it.
HOW_TO_INSTALL = {
    "chromium": "`apt-get install chromium`, or `.venv/bin/playwright install chromium`",
    "openssl": "`apt-get install openssl`",
    "pgbouncer": "`apt-get install pgbouncer`",
    "prometheus": "`apt-get install prometheus`",
    "prometheus-alertmanager": "`apt-get install prometheus-alertmanager`",
    "promtool": "`apt-get install prometheus`",
}
# Servers may be where only administrators look for programs.
_MORE_FOLDERS = "/usr/sbin"


def missing(why: str) -> NoReturn:
    """Skip the test with one line; under CI, where nothing may be skipped, fail it.

    Args:
        why: What is missing and how to get it.
    """
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails under CI."""
    return _path_of(name) or missing(_how_to_install(name))


def missing_programs() -> Iterator[str]:
    """One line for each program that this machine lacks: its name, and how to install it."""
    return (_how_to_install(name) for name in HOW_TO_INSTALL if _path_of(name) is None)


def _path_of(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_MORE_FOLDERS}")


def _how_to_install(name: str) -> str:
    return f"{name} is missing, and some tests need it: {HOW_TO_INSTALL[name]}"
