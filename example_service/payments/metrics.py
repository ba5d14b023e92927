"""The metrics of payments.

They use the classes of `prometheus_client`, which combine several workers without further code.
Your own domains can define metrics in the same way.
"""

from functools import cache
from typing import Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from example_service.payments.models import PaymentStatus

RESULTS: Final = ("answered", "failed")
OUTCOMES: Final = (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, PaymentStatus.UNRESOLVED)


class PaymentMetrics:
    """The metrics of payments in one process.

    Args:
        registry: The registry that exports them.

    Attributes:
        pending: The number of pending payments in the database, as last counted by this process.
        oldest_pending_seconds: The age of the oldest pending payment, in seconds.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        # All workers count the same payments, so only the latest count is exported.
        self.pending = Gauge(
            "payments_pending",
            "Unfinished payments.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.oldest_pending_seconds = Gauge(
            "payments_oldest_pending_seconds",
            "Age in seconds of the oldest unfinished payment; 0 if there is none.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._finished = Counter(
            "payments_finished_total",
            "Finished payments, by outcome.",
            ("outcome",),
            registry=registry,
        )
        self._attempts = Counter(
            "payments_attempts_total",
            "Calls to the provider about a payment, by result.",
            ("result",),
            registry=registry,
        )
        # Created with 0, because Prometheus' increase() ignores the first sample of a new series.
        for outcome in OUTCOMES:
            self._finished.labels(outcome)
        for result in RESULTS:
            self._attempts.labels(result)

    def finished(self, outcome: PaymentStatus | str) -> None:
        """Count a payment that this process has finished or left unresolved."""
        self._finished.labels(outcome).inc()

    def attempted(self, result: Literal["answered", "failed"]) -> None:
        """Count a call to the provider, by whether it returned the outcome of a payment."""
        self._attempts.labels(result).inc()


@cache
def payment_metrics() -> PaymentMetrics:
    """Return the metrics of this process. They are created on first use.

    They cannot be created on import, because it is not known then whether the process shares its
    metrics with other workers.
    """
    return PaymentMetrics()
