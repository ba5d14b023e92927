"""The modes that operators have set, by name of breaker, for all workers of the service.

They are kept in a file, so that they outlive any worker and are the same for all of them. A new
worker reads the file, and if two modes are set at once, the one that is written last applies
everywhere. End times are those of the monotonic clock, which all processes of a machine share.
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
    """The mode that was set last for each name.

    Args:
        directory: The directory that the workers share; None keeps the modes in memory.
        clock: The current time in seconds.
    """

    def __init__(
        self, directory: Path | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._remembered: _Stored = {}

    def read(self) -> dict[str, NamedMode]:
        """The modes by name. A mode that has ended has 0 seconds left, or fewer.

        Raises:
            OSError, ValueError: If the file cannot be read.
        """
        now = self._clock()
        return {
            name: NamedMode(Mode(mode), reason, None if ends_at is None else ends_at - now)
            for name, (mode, reason, ends_at) in self._load().items()
        }

    def write(self, name: str, mode: NamedMode | None) -> None:
        """Set or remove the mode of a name; may wait for another worker that writes.

        Raises:
            OSError, ValueError: If the file cannot be written. Nothing has changed then.
        """
        if self._directory is None:
            self._remembered = self._changed(name, mode)
            return
        with locked(self._directory / "modes.lock", exclusive=True):
            new = self._directory / f"{MODES_FILE}.new"
            new.write_text(json.dumps(self._changed(name, mode)))
            # Readers take no lock, because they see either the old file or the new one.
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
