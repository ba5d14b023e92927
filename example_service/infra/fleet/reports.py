"""What each worker of one machine reports, in a file of the directory that they share."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from example_service.infra.fleet.shared_directory import replace_file

SILENT_SECONDS: Final = 3.0
"""A worker whose report is older than this hangs."""


@dataclass(frozen=True, slots=True)
class Report:
    """What another worker has written last.

    Attributes:
        text: The report; empty if it could not be read.
        age_seconds: How long ago.
    """

    text: str
    age_seconds: float

    @property
    def is_silent(self) -> bool:
        """Whether its worker hangs."""
        return self.age_seconds > SILENT_SECONDS


class Reports:
    """The reports of all workers.

    Args:
        directory: Where they are; None for a process that is alone.
        pid: Of this process.
        clock: A clock that all processes of the machine share, in seconds.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        pid: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pid = pid
        self._directory = directory
        self._clock = clock

    def write(self, text: str) -> None:
        """Replace the report of this worker.

        Raises:
            OSError: It cannot be written.
        """
        if self._directory is not None:
            replace_file(report_path(self._directory, self.pid), f"{self._clock()}\n{text}")

    def remove(self) -> None:
        """Remove the report of this worker, which is about to end.

        Raises:
            OSError: It cannot be removed.
        """
        if self._directory is not None:
            report_path(self._directory, self.pid).unlink(missing_ok=True)

    def others(self) -> dict[int, Report]:
        """The reports of the other workers, by process id; those that have ended have none."""
        if self._directory is None:
            return {}
        reports = {}
        for path in self._directory.glob("report.*"):
            pid = path.suffix.removeprefix(".")
            if not pid.isdecimal() or int(pid) == self.pid:
                continue
            try:
                written_at, _, text = path.read_text().partition("\n")
                reports[int(pid)] = Report(text, self._clock() - float(written_at))
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                reports[int(pid)] = Report("", 0.0)
        return reports


def report_path(directory: Path, pid: int) -> Path:
    """Where the worker of a process id writes its report."""
    return directory / f"report.{pid}"
