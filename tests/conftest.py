"""What holds for every test."""

import os
from pathlib import Path

import pytest

from example_service.core.settings import Settings
from example_service.core.settings.variables import DELIMITER, group_names
from tests.real_parts import missing_programs

pytest_plugins = [
    "example_service.infra.resilience.testing",
    "tests.application",
    "tests.databases",
    "tests.service_process",
]


def pytest_report_header() -> list[str]:
    """Before the first test, say how long all of them take, and what this machine lacks."""
    duration = "about 6 minutes for all tests with two processors, 1 for `make test-fast`"
    return [f"duration: {duration}", *missing_programs()]


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no variable and no `.env` of whoever runs the tests decide their outcome."""
    groups = group_names(Settings)
    for name in os.environ:
        group, delimiter, _ = name.lower().partition(DELIMITER)
        if group in groups if delimiter else group in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    # Whatever a test does to its database, it is not the one of a developer.
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/database.sqlite3")
