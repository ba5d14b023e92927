"""Fakes of breakers and processes for tests of the metrics."""

from typing import Any

from example_service.infra.metrics import CircuitBreakerCollector, RequestMetrics
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.resilience import CircuitSnapshot, CircuitState
from example_service.infra.resilience.metrics import WindowCounts
from example_service.infra.resilience.rules.states import Mode


class FakeBreakers:
    """A source of snapshots that the test sets.

    Args:
        shown: The snapshots.
    """

    def __init__(self, *shown: CircuitSnapshot) -> None:
        self.shown = list(shown)

    def show(
        self,
        *,
        state: CircuitState = CircuitState.CLOSED,
        failures: int = 0,
        successes: int = 0,
        in_flight: int = 0,
        openings: int = 0,
        mode: Mode | None = None,
        shadow_rejections: int = 0,
        window: WindowCounts | None = None,
    ) -> None:
        """Show one breaker, `payment`, with these values."""
        change = (CircuitState.CLOSED, CircuitState.OPEN)
        snapshot = CircuitSnapshot(
            name="payment",
            state=state,
            failures=failures,
            successes=successes,
            rejections=0,
            in_flight=in_flight,
            state_changes={change: openings} if openings else {},
            mode=mode,
            shadow_rejections=shadow_rejections,
            window=window,
        )
        self.shown = [snapshot]

    def snapshots(self) -> list[CircuitSnapshot]:
        """The snapshots that were set last."""
        return self.shown


class FakeProcess:
    """The metrics of one worker, separate from those of other workers in the same process.

    Args:
        value_class: Where the library keeps the worker's values.
    """

    def __init__(self, value_class: Any) -> None:
        self.breakers = FakeBreakers()
        self.requests = RequestMetrics()
        self.shared = SharedMetrics(
            (CircuitBreakerCollector(self.breakers), self.requests), value_class=value_class
        )

    def request(self, seconds: float = 0.25) -> None:
        """Answer one request."""
        self.requests.started()
        self.requests.finished("GET", "/", 200, seconds)
