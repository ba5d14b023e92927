"""What tests of the metrics need in place of real breakers and processes."""

from typing import Any

from example_service.infra.metrics import CircuitBreakerCollector, RequestMetrics
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.resilience import CircuitSnapshot, CircuitState
from example_service.infra.resilience.metrics import WindowCounts
from example_service.infra.resilience.rules.states import Mode


class FakeBreakers:
    """A source of snapshots that a test sets.

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
        """Show one breaker, `payment`, with these figures."""
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
        """What was set last."""
        return self.shown


class FakeProcess:
    """The figures of one worker, kept apart from those of others in the same process.

    Args:
        value_class: Where the library keeps the worker's numbers.
    """

    def __init__(self, value_class: Any) -> None:
        self.breakers = FakeBreakers()
        self.requests = RequestMetrics()
        self.figures = SharedMetrics(
            (CircuitBreakerCollector(self.breakers), self.requests), value_class=value_class
        )

    def request(self, seconds: float = 0.25) -> None:
        """Answer one request."""
        self.requests.started()
        self.requests.finished("GET", "/", 200, seconds)
