"""The modes that hold for names of breakers in all workers of the service.

They are in a file, so that they outlive any worker and are the same for all: whoever starts reads
them, and of two orders at once the one that was written last holds everywhere. Ends are times of
the monotonic clock, which all processes of a machine share.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from example_service.infra.resilience import Mode, NamedMode
from example_service.infra.workers.file_lock import locked

MODES_FILE: Final = "modes.json"

# Mode, reason and end.
_Stored: TypeAlias = dict[str, tuple[str, str, float | None]]


class StandingModes:
    """What was ordered last for each name.

    Args:
        directory: Where the workers meet; None for a process that is alone, which remembers.
        clock: Where "now" comes from, in seconds.
    """

    def __init__(
        self, directory: Path | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._remembered: _Stored = {}

    def read(self) -> dict[str, NamedMode]:
        """The modes by name; those that have ended since have no seconds left, or fewer.

        Raises:
            OSError, ValueError: The file cannot be read.
        """
        now = self._clock()
        return {
            name: NamedMode(Mode(mode), reason, None if ends_at is None else ends_at - now)
            for name, (mode, reason, ends_at) in self._load().items()
        }

    def write(self, name: str, mode: NamedMode | None) -> None:
        """Have a mode hold for a name, or none; may wait for others who write.

        Raises:
            OSError, ValueError: The file cannot be written; nothing has changed then.
        """
        if self._directory is None:
            self._remembered = self._changed(name, mode)
            return
        with locked(self._directory / "modes.lock", exclusive=True):
            new = self._directory / f"{MODES_FILE}.new"
            new.write_text(json.dumps(self._changed(name, mode)))
            # Readers take no lock: they see the old file or the new one.
            new.replace(self._directory / MODES_FILE)

    def _changed(self, name: str, mode: NamedMode | None) -> _Stored:
        now = self._clock()
        stored = {
            other: one for other, one in self._load().items() if one[2] is None or one[2] > now
        }
        stored.pop(name, None)
        if mode is not None:
            ends_at = None if mode.seconds is None else now + mode.seconds
            stored[name] = mode.mode.value, mode.reason, ends_at
        return stored

    def _load(self) -> _Stored:
        if self._directory is None:
            return self._remembered
        try:
            text = (self._directory / MODES_FILE).read_text()
        except FileNotFoundError:
            return {}
        stored: dict[str, Any] = json.loads(text)
        return {name: tuple(one) for name, one in stored.items()}
