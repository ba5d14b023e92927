"""Status reports of the workers on one machine, as files in their shared directory."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from example_service.infra.workers.shared_directory import (
    directory_faults,
    make_directory,
    replace_file,
)

SILENT_SECONDS: Final = 3.0
"""A worker whose report is older than this many seconds counts as hanging."""


@dataclass(frozen=True, slots=True)
class Report:
    """The last report of another worker.

    Attributes:
        text: The report; empty if it could not be read.
        age_seconds: How long ago it was written, in seconds.
    """

    text: str
    age_seconds: float

    @property
    def is_silent(self) -> bool:
        """Whether the worker has stopped reporting, because it hangs."""
        return self.age_seconds > SILENT_SECONDS


class Reports:
    """Writes the report of this worker and reads the reports of the others.

    Args:
        directory: The directory of the reports; None if this is the only worker.
        pid: The process id of this worker.
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
        """Replace the report of this worker, or log why this is not possible."""
        if self._directory is None:
            return
        faults = directory_faults(self._directory)
        try:
            make_directory(self._directory)
            replace_file(report_path(self._directory, self.pid), f"{self._clock()}\n{text}")
        except OSError as error:
            faults.failed("report", error)
        else:
            faults.works("report")

    def remove(self) -> None:
        """Remove the report of this worker when it ends.

        Raises:
            OSError: The report cannot be removed.
        """
        if self._directory is not None:
            report_path(self._directory, self.pid).unlink(missing_ok=True)

    def others(self) -> dict[int, Report]:
        """The reports of the other running workers, by process id."""
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
    """The path of the report of the worker with process id `pid`."""
    return directory / f"report.{pid}"
