"""Durations by bucket, in plain lists of numbers.

The figures of one series are the number of durations in each bucket, not cumulated, and then the
seconds of all of them.
"""

from typing import Final

from prometheus_client import Histogram

DURATION_BOUNDS_SECONDS: Final = tuple(Histogram.DEFAULT_BUCKETS[:-1])
"""Upper ends of the buckets, each included in its bucket; a last bucket has no end."""

_BUCKET_LABELS: Final = (*map(str, DURATION_BOUNDS_SECONDS), "+Inf")


def no_durations() -> list[float]:
    """The figures of a series before its first duration."""
    return [0] * len(_BUCKET_LABELS) + [0.0]


def cumulated(figures: list[float]) -> list[tuple[str, float]]:
    """The buckets as Prometheus has them: each with its label, and all below it included."""
    total = 0.0
    buckets = []
    for label, count in zip(_BUCKET_LABELS, figures, strict=False):
        total += count
        buckets.append((label, total))
    return buckets
