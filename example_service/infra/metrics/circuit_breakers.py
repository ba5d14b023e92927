"""Prometheus metrics of the circuit breakers in this process.

They add no cost to a call: breakers count calls anyway, and each scrape reads the counts.
"""

from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from typing import Final, Protocol, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from example_service.infra.metrics.tracking import tracked_circuits
from example_service.infra.resilience import (
    CircuitSnapshot,
    CircuitState,
    circuit_breaker_registry,
)
from example_service.infra.resilience.metrics import STATE_VALUES
from example_service.infra.resilience.rules.states import Mode

# Exported as 0 before it happens, otherwise Prometheus' increase() would miss the first opening.
# All other changes happen after this one.
_FIRST_CHANGE: Final = (CircuitState.CLOSED, CircuitState.OPEN)

_Value: TypeAlias = tuple[
    type[GaugeMetricFamily | CounterMetricFamily], str, str, Callable[[CircuitSnapshot], int]
]
_VALUES: Final[tuple[_Value, ...]] = (
    (
        GaugeMetricFamily,
        "circuit_breaker_state",
        "State: 0 closed, 1 half-open, 2 open.",
        lambda snapshot: STATE_VALUES[snapshot.state],
    ),
    (
        CounterMetricFamily,
        "circuit_breaker_failures_total",
        "Calls that failed.",
        attrgetter("failures"),
    ),
    (
        CounterMetricFamily,
        "circuit_breaker_successes_total",
        "Calls that succeeded.",
        attrgetter("successes"),
    ),
    (
        CounterMetricFamily,
        "circuit_breaker_rejections_total",
        "Refused calls.",
        attrgetter("rejections"),
    ),
    (
        GaugeMetricFamily,
        "circuit_breaker_calls_in_flight",
        "Admitted calls that have not ended.",
        attrgetter("in_flight"),
    ),
)


class SnapshotSource(Protocol):
    """A source of circuit metrics."""

    def snapshots(self) -> Iterable[CircuitSnapshot]:
        """The metrics of each circuit, one snapshot for each name."""
        ...


class CircuitBreakerCollector(Collector):
    """A collector of circuit breaker metrics.

    Args:
        sources: The sources of the metrics. Defaults to the breakers of this process and the
            tracked circuits. If several have a circuit of the same name, their counters are added
            and the worst state is exported.
    """

    def __init__(self, *sources: SnapshotSource) -> None:
        self._sources: tuple[SnapshotSource, ...] = sources or (
            circuit_breaker_registry,
            tracked_circuits,
        )

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, which registration checks for name clashes."""
        return _families([])

    def collect(self) -> Iterable[Metric]:
        """Return the metric families with their current samples."""
        return _families(_one_for_each_name(self._sources))


def _families(snapshots: Collection[CircuitSnapshot]) -> list[Metric]:
    families: list[Metric] = []
    for kind, name, documentation, value in _VALUES:
        family = kind(name, documentation, labels=("name",))
        for snapshot in snapshots:
            family.add_metric((label_text(snapshot.name),), value(snapshot))
        families.append(family)
    state_changes = CounterMetricFamily(
        "circuit_breaker_state_changes_total",
        "State changes.",
        labels=("name", "from_state", "to_state"),
    )
    for snapshot in snapshots:
        changes = snapshot.state_changes
        if _FIRST_CHANGE not in changes:
            changes = {_FIRST_CHANGE: 0, **changes}
        for (from_state, to_state), count in changes.items():
            state_changes.add_metric((label_text(snapshot.name), from_state, to_state), count)
    return [*families, state_changes, *_window_families(snapshots), *_mode_families(snapshots)]


def _window_families(snapshots: Collection[CircuitSnapshot]) -> tuple[Metric, Metric, Metric]:
    """The windows of the breakers that have a failure rate rule."""
    rates = GaugeMetricFamily(
        "circuit_breaker_window_failure_rate",
        "Share of failures among the recent calls that the failure rate rule counts.",
        labels=("name",),
    )
    calls = GaugeMetricFamily(
        "circuit_breaker_window_calls",
        "Number of recent calls that the failure rate rule counts.",
        labels=("name",),
    )
    thresholds = GaugeMetricFamily(
        "circuit_breaker_window_threshold",
        "Share of failures that opens the circuit.",
        labels=("name",),
    )
    for snapshot in snapshots:
        if (window := snapshot.window) is not None:
            labels = (label_text(snapshot.name),)
            rates.add_metric(labels, window.failure_rate)
            calls.add_metric(labels, window.calls)
            thresholds.add_metric(labels, window.threshold)
    return rates, calls, thresholds


def _mode_families(snapshots: Collection[CircuitSnapshot]) -> tuple[Metric, Metric]:
    """The modes that operators have set, and the refusals that shadow mode overrode."""
    modes = GaugeMetricFamily(
        "circuit_breaker_mode",
        "Processes in which an operator has set this mode.",
        labels=("name", "mode"),
    )
    shadow_rejections = CounterMetricFamily(
        "circuit_breaker_shadow_rejections_total",
        "Calls admitted by shadow mode that would have been refused.",
        labels=("name",),
    )
    for snapshot in snapshots:
        if snapshot.mode is not None:
            modes.add_metric((label_text(snapshot.name), snapshot.mode.value), 1)
        # Exported as 0 when shadow mode starts, so that increase() sees the first rejection.
        if snapshot.shadow_rejections or snapshot.mode is Mode.SHADOW:
            shadow_rejections.add_metric((label_text(snapshot.name),), snapshot.shadow_rejections)
    return modes, shadow_rejections


def _one_for_each_name(sources: Iterable[SnapshotSource]) -> Collection[CircuitSnapshot]:
    by_name: dict[str, CircuitSnapshot] = {}
    for source in sources:
        for snapshot in source.snapshots():
            known = by_name.get(snapshot.name)
            by_name[snapshot.name] = snapshot if known is None else known.plus(snapshot)
    return by_name.values()


def label_text(name: str) -> str:
    """Return the name of a breaker as a label value.

    The library escapes quotes, backslashes and newlines. Lone surrogates are escaped here, because
    they cannot be encoded as UTF-8 and would make every scrape fail.
    """
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


circuit_breaker_collector = CircuitBreakerCollector()
"""The collector of all breakers in this process."""
