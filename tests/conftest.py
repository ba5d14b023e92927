"""Fixtures and hooks for every test."""

import logging
import os
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path

import pytest
import structlog

from example_service.core.logging import CHATTY_LOGGERS, SERVER_LOGGERS
from example_service.core.settings import Settings
from example_service.core.settings.variables import DELIMITER, group_names
from tests.real_parts import missing_programs

pytest_plugins = [
    "example_service.infra.resilience.testing",
    "tests.application",
    "tests.databases",
    "tests.service_process",
    "tests.shared_costs",
]


def pytest_report_header() -> list[str]:
    """Print how long all tests take, and what this machine lacks."""
    duration = "about 9 minutes for all tests on two processors, 2 for `make test-fast`"
    return [f"duration: {duration}", *missing_programs()]


_CONFIGURED_LOGGERS = ("root", "example_service", *CHATTY_LOGGERS, *SERVER_LOGGERS)


@pytest.fixture(autouse=True)
def _former_logging() -> Iterator[None]:
    """Restore the configuration of logging, which belongs to the process, after each test."""
    loggers = [logging.getLogger(name) for name in _CONFIGURED_LOGGERS]
    former = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, propagate, handlers in former:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """Run two processes on each processor, because tests with servers spend their time waiting.

    Tests without servers keep a processor busy, so one process for each is enough.
    """
    processors = yield
    return processors if "not integration" in config.option.markexpr else processors * 2


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In a run without integration tests, do not import files that have no other tests."""
    if "not integration" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    marked = "\npytestmark = pytest.mark.integration\n"
    return True if marked in collection_path.read_text(encoding="utf-8") else None


_numbers = count(1)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep the developer's variables and `.env` from affecting the tests."""
    groups = group_names(Settings)
    for name in os.environ:
        group, delimiter, _ = name.lower().partition(DELIMITER)
        if group in groups if delimiter else group in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    # No test may use the developer's database. A folder for each test would take longer than most.
    file = tmp_path_factory.getbasetemp() / f"database-{next(_numbers)}.sqlite3"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{file}")
