"""Clocks that are wrong, each by up to two days: what libfaketime makes a process believe."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

LONGEST_SKEW_SECONDS: Final = 2 * 86_400

_FOLDERS: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_LIBRARY: Final = "faketime/libfaketimeMT.so.1"


def faketime_library() -> Path | None:
    """The library that skews the clock of a process, if it is installed."""
    found = (path for folder in _FOLDERS for path in Path(folder).glob(f"**/{_LIBRARY}"))
    return next(found, None)


def wrong_clocks(library: Path | None, seed: str) -> Iterator[Mapping[str, str]]:
    """Draw variables for one process after the other, each of which gives it another time of day.

    Only the time of day is skewed: the seconds that pass are real ones.

    Args:
        library: What skews clocks; without it all clocks are right.
        seed: The same one draws the same skews.
    """
    chance = random.Random(seed)
    while True:
        skew = chance.uniform(-LONGEST_SKEW_SECONDS, LONGEST_SKEW_SECONDS)
        yield {} if library is None else wrong_clock(library, skew)


def wrong_clock(library: Path, skew: float) -> Mapping[str, str]:
    """Variables that put the time of day of a process ahead by so many seconds."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{skew:+.3f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # With its correction, timed waits of threads take seconds.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        # Otherwise killed processes leave shared memory behind.
        "FAKETIME_DISABLE_SHM": "1",
    }
