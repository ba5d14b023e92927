"""The programs that some tests need, and how tests behave if one of them is missing."""

import os
import shutil
from collections.abc import Iterator
from typing import NoReturn

import pytest

# The programs that tests start and that are not in the environment, with how to install them.
HOW_TO_INSTALL = {
    "chromium": "`apt-get install chromium`, or `.venv/bin/playwright install chromium`",
    "openssl": "`apt-get install openssl`",
    "pgbouncer": "`apt-get install pgbouncer`",
    "prometheus": "`apt-get install prometheus`",
    "prometheus-alertmanager": "`apt-get install prometheus-alertmanager`",
    "promtool": "`apt-get install prometheus`",
}
# Servers may be installed outside a user's PATH.
_MORE_FOLDERS = "/usr/sbin"


def missing(why: str) -> NoReturn:
    """Skip the test with one line; in CI, where no test may be skipped, fail it.

    Args:
        why: What is missing, and how to install it.
    """
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def program(name: str) -> str:
    """The path of a program; without it, the test is skipped, or fails in CI."""
    return _path_of(name) or missing(_how_to_install(name))


def missing_programs() -> Iterator[str]:
    """One line for each program that is missing: its name, and how to install it."""
    return (_how_to_install(name) for name in HOW_TO_INSTALL if _path_of(name) is None)


def _path_of(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_MORE_FOLDERS}")


def _how_to_install(name: str) -> str:
    return f"{name} is missing, and some tests need it: {HOW_TO_INSTALL[name]}"
