"""A metric of the last result of the readiness checks."""

from functools import cache

from prometheus_client import Gauge


def show_readiness(*, is_ready: bool) -> None:
    """Export the result of the readiness checks. Of several workers, the latest result counts."""
    _gauge().set(is_ready)


@cache
def _gauge() -> Gauge:
    # Not created at import, because it is not yet known then whether metrics are shared.
    return Gauge(
        "service_ready",
        "1 if this instance accepts requests, 0 if it does not.",
        multiprocess_mode="livemostrecent",
    )
