"""Whether this instance wants requests, as the last look at its readiness found it."""

from functools import cache

from prometheus_client import Gauge


def show_readiness(*, is_ready: bool) -> None:
    """Export what the readiness checks have found; of several workers the latest finding counts."""
    _gauge().set(is_ready)


@cache
def _gauge() -> Gauge:
    # Not at the import, which comes before a process knows whether it shares its metrics.
    return Gauge(
        "service_ready",
        "1 if this instance wants requests, 0 if it does not.",
        multiprocess_mode="livemostrecent",
    )
