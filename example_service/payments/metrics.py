"""What monitoring sees of payments.

Prometheus' own kinds of metrics, which add up over several workers without further code: a domain
of yours can have metrics in the same way.
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
        registry: Where they are exported.

    Attributes:
        pending: Payments that are pending in the database, as this process last counted them.
        oldest_pending_seconds: The age of the oldest of them.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        # All workers count the same payments, so the latest count stands for all of them.
        self.pending = Gauge(
            "payments_pending",
            "Payments that are not finished.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.oldest_pending_seconds = Gauge(
            "payments_oldest_pending_seconds",
            "Age of the oldest payment that is not finished; 0 if there is none.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._finished = Counter(
            "payments_finished_total",
            "Payments that the service will not work on any more.",
            ("outcome",),
            registry=registry,
        )
        self._attempts = Counter(
            "payments_attempts_total",
            "Calls to the provider about a payment.",
            ("result",),
            registry=registry,
        )
        # Shown as 0 until they happen, or Prometheus' increase() would miss the first of each.
        for outcome in OUTCOMES:
            self._finished.labels(outcome)
        for result in RESULTS:
            self._attempts.labels(result)

    def finished(self, outcome: PaymentStatus | str) -> None:
        """Count a payment that this process has finished, or left to people."""
        self._finished.labels(outcome).inc()

    def attempted(self, result: Literal["answered", "failed"]) -> None:
        """Count a call to the provider: whether it said what has become of a payment."""
        self._attempts.labels(result).inc()


@cache
def payment_metrics() -> PaymentMetrics:
    """The metrics of this process, created when they are first needed.

    Not at the import, which comes before a process knows whether it shares its metrics.
    """
    return PaymentMetrics()
