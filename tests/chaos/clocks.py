"""Wrong clocks: libfaketime shifts the time of a process by up to two days."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

MAX_SKEW_SECONDS: Final = 2 * 86_400

_FOLDERS: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_LIBRARY: Final = "faketime/libfaketimeMT.so.1"


def faketime_library() -> Path | None:
    """The library that shifts the clock of a process, if it is installed."""
    found = (path for folder in _FOLDERS for path in Path(folder).glob(f"**/{_LIBRARY}"))
    return next(found, None)


def wrong_clocks(library: Path | None, seed: str) -> Iterator[Mapping[str, str]]:
    """Draw variables for a sequence of processes, each of which gets a different time.

    Only the wall clock is shifted; seconds still have their real length.

    Args:
        library: The library that shifts clocks; without it all clocks are right.
        seed: Decides the shifts.
    """
    chance = random.Random(seed)
    while True:
        skew = chance.uniform(-MAX_SKEW_SECONDS, MAX_SKEW_SECONDS)
        yield {} if library is None else wrong_clock(library, skew)


def wrong_clock(library: Path, skew: float) -> Mapping[str, str]:
    """Variables that put the wall clock of a process ahead by that many seconds."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{skew:+.3f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # With libfaketime's correction, timed waits of threads take seconds.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        # Without this, killed processes leave shared memory behind.
        "FAKETIME_DISABLE_SHM": "1",
    }
