"""Counting without a lock.

`itertools.repeat(item, n)` yields `item` n times. `next(counter, None)` is a single call into C,
which no other thread can interrupt while there is a global interpreter lock (GIL): it returns the
item and counts it in one atomic step. `length_hint` says how many are left.

Free-threaded builds of Python have no GIL. There, `GIL_ENABLED` is False and a breaker takes its
lock for every admission and every outcome.
"""

import sys
from itertools import repeat
from operator import length_hint
from typing import Any, TypeVar

T = TypeVar("T")

GIL_ENABLED: bool = getattr(sys, "_is_gil_enabled", lambda: True)()

_ENDLESS = sys.maxsize

EMPTY: "repeat[None]" = repeat(None, 0)
"""A counter that yields nothing, so that every caller has to take the lock."""


def endless(item: T) -> "repeat[T]":
    """Make a counter that never runs out."""
    return repeat(item, _ENDLESS)


def taken(counter: "repeat[Any]") -> int:
    """How many items an endless counter has yielded; 0 for `EMPTY`."""
    left = length_hint(counter)
    return _ENDLESS - left if left else 0
