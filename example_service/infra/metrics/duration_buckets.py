"""Durations by bucket, in plain lists of numbers.

The list of a series has the number of durations in each bucket, without those of the buckets below,
and then the sum of all durations in seconds.
"""

from typing import Final

from prometheus_client import Histogram

DURATION_BOUNDS_SECONDS: Final = tuple(Histogram.DEFAULT_BUCKETS[:-1])
"""Upper ends of the buckets, each included in its bucket; a last bucket has no end."""

_BUCKET_LABELS: Final = (*map(str, DURATION_BOUNDS_SECONDS), "+Inf")


def no_durations() -> list[float]:
    """The list of a series before its first duration."""
    return [0] * len(_BUCKET_LABELS) + [0.0]


def cumulated(series: list[float]) -> list[tuple[str, float]]:
    """The buckets as Prometheus expects them: each with its label, and including those below it."""
    total = 0.0
    buckets = []
    for label, count in zip(_BUCKET_LABELS, series, strict=False):
        total += count
        buckets.append((label, total))
    return buckets
