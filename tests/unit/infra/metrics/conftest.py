"""Fixtures for metrics that several workers share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, values

from example_service.infra.metrics.shared.files import SharedFiles
from example_service.infra.workers.shared_directory import DIRECTORY_VARIABLE
from tests.unit.infra.metrics.fakes import FakeProcess


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the workers share."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def value_class(directory: Path) -> Iterator[Callable[[int], Any]]:
    """Creates the library's storage for the values of a worker, by process id."""
    assert directory.is_dir()
    made = []

    def make(pid: int) -> Any:
        made.append(values.MultiProcessValue(lambda: pid))  # type: ignore[no-untyped-call]
        return made[-1]

    yield make
    for each in made:
        each.close_all_files()


@pytest.fixture
def process(value_class: Callable[[int], Any]) -> Callable[[int], FakeProcess]:
    """Creates a fake worker, by process id."""
    return lambda pid: FakeProcess(value_class(pid))


@pytest.fixture
def total(directory: Path) -> Callable[..., float | None]:
    """Reads the total of all workers, by sample name and labels."""

    def read(sample: str, /, **labels: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(SharedFiles(directory))
        return registry.get_sample_value(sample, labels)

    return read
