"""Histograms of durations as plain lists.

A list contains the number of durations in each bucket (not cumulative), followed by the sum of all
durations in seconds.
"""

from typing import Final

from prometheus_client import Histogram

DURATION_BOUNDS_SECONDS: Final = tuple(Histogram.DEFAULT_BUCKETS[:-1])
"""The inclusive upper bounds of the buckets in seconds. One more bucket has no upper bound."""

_BUCKET_LABELS: Final = (*map(str, DURATION_BOUNDS_SECONDS), "+Inf")


def no_durations() -> list[float]:
    """Return the list of an empty histogram."""
    return [0] * len(_BUCKET_LABELS) + [0.0]


def cumulated(series: list[float]) -> list[tuple[str, float]]:
    """Return the label and the cumulative count of each bucket, as Prometheus expects them."""
    total = 0.0
    buckets = []
    for label, count in zip(_BUCKET_LABELS, series, strict=False):
        total += count
        buckets.append((label, total))
    return buckets
