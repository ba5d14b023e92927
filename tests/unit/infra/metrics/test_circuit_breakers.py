"""The metrics of a process's breakers."""

import gc
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from example_service.infra.metrics import CircuitBreakerCollector
from example_service.infra.metrics.tracking import TrackedCircuits
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitSnapshot,
    CircuitState,
    FailureRate,
)
from example_service.infra.resilience.rules.states import Mode
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.metrics.fakes import FakeBreakers

ODD_NAMES = [
    'say "no"',
    "back\\slash",
    "two\nlines",
    "\\n",
    'ends with \\"',
    "tab\tand\rreturn",
    "{name=}, #1",
    "zahlung-ä-支払い-🔌",
    " ",
]


def snapshot(name: str, state: CircuitState = CircuitState.CLOSED) -> CircuitSnapshot:
    """A snapshot with five different counts."""
    return CircuitSnapshot(
        name=name,
        state=state,
        failures=3,
        successes=5,
        rejections=7,
        in_flight=2,
        state_changes={
            (CircuitState.CLOSED, CircuitState.OPEN): 4,
            (CircuitState.OPEN, CircuitState.HALF_OPEN): 1,
        },
    )


def exported(*sources: object) -> CollectorRegistry:
    """A separate registry that exports the sources."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(CircuitBreakerCollector(*sources))  # type: ignore[arg-type]
    return registry


def test_each_metric_has_its_documented_name_and_labels() -> None:
    """Dashboards rely on these names."""
    registry = exported(FakeBreakers(snapshot("payment", CircuitState.HALF_OPEN)))

    shown = {
        (sample.name, *sample.labels.items()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }

    name = ("name", "payment")
    assert shown == {
        ("circuit_breaker_state", name): 1,
        ("circuit_breaker_failures_total", name): 3,
        ("circuit_breaker_successes_total", name): 5,
        ("circuit_breaker_rejections_total", name): 7,
        ("circuit_breaker_calls_in_flight", name): 2,
        (
            "circuit_breaker_state_changes_total",
            name,
            ("from_state", "closed"),
            ("to_state", "open"),
        ): 4,
        (
            "circuit_breaker_state_changes_total",
            name,
            ("from_state", "open"),
            ("to_state", "half_open"),
        ): 1,
    }


@pytest.mark.parametrize(
    ("state", "value"),
    [(CircuitState.CLOSED, 0), (CircuitState.HALF_OPEN, 1), (CircuitState.OPEN, 2)],
)
def test_worse_states_have_higher_numbers(state: CircuitState, value: int) -> None:
    """Closed is 0, half-open is 1 and open is 2."""
    registry = exported(FakeBreakers(snapshot("payment", state)))

    assert registry.get_sample_value("circuit_breaker_state", {"name": "payment"}) == value


def test_the_first_opening_shows_as_an_increase() -> None:
    """A circuit that never opened has the value 0; a series that starts at 1 is no increase."""
    registry = exported(FakeBreakers(CircuitSnapshot("quiet", CircuitState.CLOSED, 0, 0, 0, 0, {})))

    labels = {"name": "quiet", "from_state": "closed", "to_state": "open"}
    assert registry.get_sample_value("circuit_breaker_state_changes_total", labels) == 0


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_in_effect_is_1_and_other_modes_have_no_series(mode: Mode) -> None:
    """`circuit_breaker_mode > 0` is a complete alert, and breakers without a mode add no series."""
    held = CircuitSnapshot("held", CircuitState.CLOSED, 0, 0, 0, 0, {}, mode=mode)
    registry = exported(FakeBreakers(held, snapshot("free")))

    (family,) = (family for family in registry.collect() if family.name == "circuit_breaker_mode")

    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"name": "held", "mode": mode.value}, 1)
    ]


def test_shadow_rejections_are_shown_from_the_start_of_the_mode() -> None:
    """The first rejection shows as an increase, and the count remains when the mode ends."""
    shown = [
        CircuitSnapshot(
            name, CircuitState.CLOSED, 0, 0, 0, 0, {}, mode=mode, shadow_rejections=count
        )
        for name, mode, count in (
            ("begun", Mode.SHADOW, 0),
            ("ended", None, 4),
            ("never", Mode.FORCED_OPEN, 0),
        )
    ]
    registry = exported(FakeBreakers(*shown))

    rejections = "circuit_breaker_shadow_rejections_total"
    values = [
        registry.get_sample_value(rejections, {"name": name})
        for name in ("begun", "ended", "never")
    ]
    assert values == [0, 4, None]


def test_a_mode_of_one_source_is_not_hidden_by_another() -> None:
    """A tracked circuit has no mode, and does not hide the mode of ours."""
    held = CircuitSnapshot(
        "payment", CircuitState.CLOSED, 0, 0, 0, 0, {}, mode=Mode.SHADOW, shadow_rejections=2
    )
    for sources in ((held, snapshot("payment")), (snapshot("payment"), held)):
        registry = exported(*(FakeBreakers(source) for source in sources))
        labels = {"name": "payment"}
        mode = registry.get_sample_value("circuit_breaker_mode", {**labels, "mode": "shadow"})
        count = registry.get_sample_value("circuit_breaker_shadow_rejections_total", labels)
        assert (mode, count) == (1, 2)


def test_sources_that_share_a_name_add_up() -> None:
    """Each name has one series, with the sum of the counts and the worst state."""
    ours = FakeBreakers(snapshot("payment", CircuitState.OPEN))
    theirs = TrackedCircuits()
    theirs.failure("payment")
    theirs.success("payment")
    theirs.state_change("payment", CircuitState.OPEN, CircuitState.HALF_OPEN)

    registry = exported(ours, theirs)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"name": "payment", **labels})

    assert value("circuit_breaker_failures_total") == 4
    assert value("circuit_breaker_successes_total") == 6
    assert value("circuit_breaker_rejections_total") == 7
    assert value("circuit_breaker_state") == 2
    changes = "circuit_breaker_state_changes_total"
    assert value(changes, from_state="closed", to_state="open") == 4
    assert value(changes, from_state="open", to_state="half_open") == 2


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_makes_valid_prometheus_text(name: str) -> None:
    """A parser of the Prometheus text reads the original name."""
    text = generate_latest(exported(FakeBreakers(snapshot(name)))).decode()

    samples = [sample for family in parse_prometheus(text) for sample in family.samples]

    assert {sample.labels["name"] for sample in samples} == {name}
    assert len(samples) == 7


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_makes_valid_openmetrics_text(name: str) -> None:
    """A parser of the OpenMetrics text reads the original name."""
    text = generate_openmetrics(exported(FakeBreakers(snapshot(name)))).decode()  # type: ignore[no-untyped-call]

    samples = [sample for family in parse_openmetrics(text) for sample in family.samples]  # type: ignore[no-untyped-call]

    assert {sample.labels["name"] for sample in samples} == {name}
    assert len(samples) == 7


def test_a_name_with_a_lone_surrogate_breaks_nothing() -> None:
    """The surrogate is escaped, and the other breakers are shown as well."""
    registry = exported(FakeBreakers(snapshot("half\ud83d"), snapshot("whole")))

    text = generate_latest(registry).decode()

    names = {s.labels["name"] for family in parse_prometheus(text) for s in family.samples}
    assert names == {"half\\ud83d", "whole"}


def test_a_collector_can_be_registered_only_once() -> None:
    """The text would be invalid if the same metrics appeared twice."""
    registry = exported(FakeBreakers())

    with pytest.raises(ValueError, match="circuit_breaker_state"):
        registry.register(CircuitBreakerCollector(FakeBreakers()))


class TestRealBreakers:
    """The collector with the real registry of breakers."""

    async def test_a_failing_dependency_can_be_followed(self) -> None:
        """The metrics show the failures, the opening and the rejections."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        breaker = CircuitBreaker("payment", failure_threshold=2, registry=breakers)

        async def answer() -> str:
            return "paid"

        async def fail() -> None:
            raise ConnectionError

        await breaker.call(answer)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await breaker.call(fail)
        with pytest.raises(CircuitOpenError):
            await breaker.call(answer)

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, {"name": "payment", **labels})

        assert value("circuit_breaker_successes_total") == 1
        assert value("circuit_breaker_failures_total") == 2
        assert value("circuit_breaker_rejections_total") == 1
        assert value("circuit_breaker_state") == 2
        changes = "circuit_breaker_state_changes_total"
        assert value(changes, from_state="closed", to_state="open") == 1

    async def test_a_shadow_mode_can_be_followed(self) -> None:
        """Calls that it would have refused are counted, and the count survives mode and reset."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        breaker = CircuitBreaker("payment", failure_threshold=1, registry=breakers)

        def shown() -> tuple[float | None, ...]:
            names = ("shadow_rejections_total", "rejections_total", "state")
            return (
                registry.get_sample_value(
                    "circuit_breaker_mode", {"name": "payment", "mode": "shadow"}
                ),
                *(
                    registry.get_sample_value(f"circuit_breaker_{name}", {"name": "payment"})
                    for name in names
                ),
            )

        assert shown() == (None, None, 0, 0)
        breaker.shadow("to see")
        assert shown() == (1, 0, 0, 0)
        with pytest.raises(ConnectionError), breaker:
            raise ConnectionError
        for _ in range(3):
            with breaker:
                pass
        assert shown() == (1, 3, 0, 2)
        await breaker.reset()
        assert shown() == (None, 3, 0, 0)

    @pytest.mark.parametrize("size", [{"window_calls": 10}, {"window_seconds": 30.0}])
    def test_the_window_of_the_failure_rate_rule_is_shown(self, size: dict[str, Any]) -> None:
        """Its rate, calls and threshold are current, and the window is empty while open."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        rule = FailureRate(threshold=0.5, minimum_calls=4, **size)
        clock = FakeClock()
        breaker = CircuitBreaker("payment", failure_rate=rule, clock=clock, registry=breakers)
        without = CircuitBreaker("search", registry=breakers)

        def window(name: str) -> list[float | None]:
            labels = {"name": name}
            names = ("failure_rate", "calls", "threshold")
            return [
                registry.get_sample_value(f"circuit_breaker_window_{name}", labels)
                for name in names
            ]

        assert window("payment") == [0.0, 0, 0.5]
        assert window(without.name) == [None, None, None]
        for outcome in (None, ConnectionError(), None):
            with suppress(ConnectionError), breaker:
                if outcome is not None:
                    raise outcome
        assert window("payment") == [1 / 3, 3, 0.5]
        with suppress(ConnectionError), breaker:
            raise ConnectionError
        assert breaker.is_open
        assert window("payment") == [0.0, 0, 0.5]

    def test_results_leave_the_window_without_a_call(self) -> None:
        """A scrape shows the time window as of now, not as of the last call."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        clock = FakeClock()
        rule = FailureRate(window_seconds=30.0)
        breaker = CircuitBreaker("payment", failure_rate=rule, clock=clock, registry=breakers)
        with suppress(ConnectionError), breaker:
            raise ConnectionError

        values = []
        for seconds in (29.0, 1.0):
            clock.advance(seconds)
            value = registry.get_sample_value("circuit_breaker_window_calls", {"name": "payment"})
            values.append(value)

        assert values == [1, 0]

    def test_the_worse_of_two_windows_with_one_name_is_shown(self) -> None:
        """The window closest to opening is shown as a whole, not a mixture of both."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        good, bad = (
            CircuitBreaker("payment", failure_rate=FailureRate(), registry=breakers)
            for _ in range(2)
        )
        for _ in range(3):
            good.call_sync(str)
        with suppress(ConnectionError), bad:
            raise ConnectionError
        bad.call_sync(str)

        names = ("failure_rate", "calls")
        shown = [
            registry.get_sample_value(f"circuit_breaker_window_{name}", {"name": "payment"})
            for name in names
        ]
        assert shown == [0.5, 2]

    async def test_a_call_is_in_flight_until_it_ends(self) -> None:
        """The gauge counts running calls."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        breaker = CircuitBreaker("payment", registry=breakers)
        in_flight = "circuit_breaker_calls_in_flight"

        async with breaker:
            during = registry.get_sample_value(in_flight, {"name": "payment"})

        assert during == 1
        assert registry.get_sample_value(in_flight, {"name": "payment"}) == 0

    async def test_a_reset_does_not_decrease_the_counters(self) -> None:
        """A reset clears the breaker's totals, but Prometheus counters only go up."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        breaker = CircuitBreaker("payment", registry=breakers)
        async with breaker:
            pass

        await breaker.reset()

        successes = "circuit_breaker_successes_total"
        assert breaker.get_metrics()["total_successes"] == 0
        assert registry.get_sample_value(successes, {"name": "payment"}) == 1

    def test_short_lived_breakers_leave_no_series(self) -> None:
        """A breaker that is no longer used is no longer exported."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        for number in range(1000):
            with CircuitBreaker(f"request_{number}", registry=breakers):
                pass
        gc.collect()

        assert [sample for family in registry.collect() for sample in family.samples] == []

    def test_counters_keep_the_counts_of_a_freed_breaker(self) -> None:
        """If one of two breakers with the same name is freed, its counts stay in the sum."""
        breakers = CircuitBreakerRegistry()
        registry = exported(breakers)
        kept = CircuitBreaker("payment", registry=breakers)
        gone = CircuitBreaker("payment", registry=breakers)
        with kept, gone:
            pass

        del gone
        gc.collect()

        successes = "circuit_breaker_successes_total"
        assert registry.get_sample_value(successes, {"name": "payment"}) == 2


def test_importing_the_package_exports_every_breaker() -> None:
    """It exports the breakers that were created before and after the import."""
    program = """
from example_service.infra.resilience import CircuitBreaker
before = CircuitBreaker("before")
import example_service.infra.metrics
after = CircuitBreaker("after")
from prometheus_client import REGISTRY
for name in ("before", "after"):
    print(REGISTRY.get_sample_value("circuit_breaker_state", {"name": name}))
"""

    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ended.stdout == "0\n0\n"


def test_this_process_exports_its_breakers() -> None:
    """The default registry shows a breaker without any further configuration."""
    breaker = CircuitBreaker("made_for_the_default_registry")

    labels = {"name": breaker.name}
    assert REGISTRY.get_sample_value("circuit_breaker_state", labels) == 0
