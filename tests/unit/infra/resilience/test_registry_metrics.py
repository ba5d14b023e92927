"""Metrics of all breakers in a registry."""

import gc
from typing import Any

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitSnapshot,
    CircuitState,
    FailureRate,
    Mode,
)
from example_service.infra.resilience.registry import REMEMBERED_NAMES
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import RunningCall, fail, make_breaker, opened, succeed

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class TestMonitoring:
    """The data for health checks and metrics."""

    def test_one_breaker_is_shown_as_it_is(self) -> None:
        """The dictionary is the same as the breaker's own."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("x", registry=registry)
        succeed(breaker, 3)
        assert registry.get_all_metrics() == {"x": breaker.get_metrics()}

    def test_breakers_of_one_name_add_up(self) -> None:
        """Counters are added up, and the worst state and wait are shown."""
        registry, clock = CircuitBreakerRegistry(), FakeClock()
        first = make_breaker(clock, registry=registry)
        second = make_breaker(clock, registry=registry, failure_threshold=2)
        succeed(first, 6)
        fail(second, 2)
        with pytest.raises(CircuitOpenError):
            succeed(second)
        RunningCall(first)
        metrics = registry.get_all_metrics()["search"]
        assert metrics["state"] == "open"
        assert metrics["retry_after"] == 60.0
        assert metrics["total_successes"] == 6
        assert metrics["total_failures"] == 2
        assert metrics["total_rejections"] == 1
        assert metrics["opened_count"] == 1
        assert metrics["in_flight"] == 1
        assert metrics["failure_rate"] == 0.25
        assert metrics["last_failure_time"] == second.get_metrics()["last_failure_time"]
        (snapshot,) = registry.snapshots()
        assert snapshot == CircuitSnapshot(
            **{
                **_as_dict(snapshot),
                "name": "search",
                "state": OPEN,
                "failures": 2,
                "successes": 6,
                "rejections": 1,
                "in_flight": 1,
                "mode": None,
                "would_have_rejected": 0,
                "state_changes": {(CLOSED, OPEN): 1},
            }
        )

    def test_several_idle_breakers_have_no_failure_rate(self) -> None:
        """There is no division by zero."""
        registry = CircuitBreakerRegistry()
        both = [make_breaker(registry=registry) for _ in range(2)]
        metrics = registry.get_all_metrics()["search"]
        assert metrics["failure_rate"] == 0.0
        assert metrics["last_failure_time"] is None
        assert len(both) == len(registry)

    @pytest.mark.parametrize(
        ("states", "worst"),
        [((CLOSED, HALF_OPEN), HALF_OPEN), ((HALF_OPEN, OPEN), OPEN), ((OPEN, CLOSED), OPEN)],
    )
    def test_the_worst_state_is_shown(
        self, states: tuple[CircuitState, ...], worst: CircuitState
    ) -> None:
        """Open is worse than half-open, which is worse than closed."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry) for _ in states]
        for breaker, state in zip(breakers, states, strict=True):
            breaker._state = state
        assert registry.snapshots()[0].state is worst
        assert registry.get_all_metrics()["search"]["state"] == worst

    @pytest.mark.parametrize("set_on", [0, 1])
    def test_a_mode_of_any_of_them_is_shown(self, set_on: int) -> None:
        """An operator may have forgotten it."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry, failure_threshold=1) for _ in range(2)]
        fail(breakers[1 - set_on])
        breakers[set_on].disable("forgotten")
        metrics = registry.get_all_metrics()["search"]
        assert metrics["state"] == "open"
        assert metrics["mode"]["reason"] == "forgotten"

    def test_of_two_modes_that_of_the_worst_state_is_shown(self) -> None:
        """This is the mode that refuses calls."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry) for _ in range(3)]
        breakers[0].disable("one")
        breakers[1].force_open("two")
        breakers[2].disable("three")
        assert registry.get_all_metrics()["search"]["mode"]["reason"] == "two"

    @pytest.mark.parametrize("waits", [(10.0, 100.0), (100.0, 10.0)])
    def test_the_longest_wait_is_shown(self, waits: tuple[float, ...]) -> None:
        """Until then, not all of them admit calls."""
        registry = CircuitBreakerRegistry()
        kept = [
            opened(FakeClock(), registry=registry, recovery_timeout=seconds) for seconds in waits
        ]
        assert registry.get_all_metrics()["search"]["retry_after"] == 100.0
        kept[0].force_open("for good")
        assert registry.get_all_metrics()["search"]["retry_after"] is None

    def test_a_scrape_processes_what_is_due(self) -> None:
        """An open circuit whose wait has ended is shown as half-open."""
        registry, clock = CircuitBreakerRegistry(), FakeClock()
        breaker = make_breaker(clock, registry=registry, failure_threshold=1)
        fail(breaker)
        clock.advance(60.0)
        (snapshot,) = registry.snapshots()
        assert snapshot.state is HALF_OPEN
        assert snapshot.state_changes == {(CLOSED, OPEN): 1, (OPEN, HALF_OPEN): 1}

    def test_what_freed_breakers_have_counted_outlives_their_name(self) -> None:
        """This includes names that are unregistered and used again."""
        registry = CircuitBreakerRegistry()
        succeed(make_breaker(registry=registry), 100)
        gc.collect()
        breaker = make_breaker(registry=registry)
        registry.unregister("search")
        registry.register(breaker)
        assert [snapshot.successes for snapshot in registry.snapshots()] == [100]

    def test_what_shadow_mode_lets_through_adds_up(self) -> None:
        """It adds up like all other counters of breakers with one name."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry, failure_threshold=1) for _ in range(3)]
        registry.set_mode("search", Mode.SHADOW, "a look")
        for breaker in breakers:
            fail(breaker)
            succeed(breaker, 2)
        shown = registry.get_all_metrics()["search"]["mode"]
        assert (shown["name"], shown["would_have_rejected"]) == (Mode.SHADOW, 6)

    async def test_counters_of_monitoring_never_go_down(self) -> None:
        """Neither a reset nor the end of a breaker decreases them."""
        registry = CircuitBreakerRegistry()
        breaker = make_breaker(registry=registry, failure_threshold=1)
        fail(breaker)
        with pytest.raises(CircuitOpenError):
            succeed(breaker)
        await breaker.reset()
        succeed(breaker)
        for _ in range(3):
            (snapshot,) = registry.snapshots()
            assert (snapshot.failures, snapshot.successes, snapshot.rejections) == (1, 1, 1)
            assert snapshot.state_changes == {(CLOSED, OPEN): 1, (OPEN, CLOSED): 1}
            assert breaker is not None
            breaker = make_breaker(registry=registry)
            gc.collect()

    def test_a_breaker_freed_during_a_scrape_counts_in_it(self) -> None:
        """It counts either as existing or as freed, whenever another thread drops it."""
        freed: list[CircuitBreaker] = []

        class FreeingRegistry(CircuitBreakerRegistry):
            def _keep_counters(self) -> None:
                super()._keep_counters()
                freed.clear()

        registry = FreeingRegistry()
        kept = make_breaker(registry=registry)
        freed.append(make_breaker(registry=registry))
        succeed(kept, 2)
        succeed(freed[0], 3)
        for _ in range(2):
            (snapshot,) = registry.snapshots()
            assert snapshot.successes == 5

    async def test_reset_all_resets_every_breaker(self) -> None:
        """This includes several breakers with one name."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry, failure_threshold=1) for _ in range(3)]
        for breaker in breakers:
            fail(breaker)
        await registry.reset_all()
        assert [breaker.is_closed for breaker in breakers] == [True] * 3

    def test_names_without_a_breaker_are_remembered_up_to_a_limit(self) -> None:
        """Unlimited names cannot fill the memory, and recent ones keep counting."""
        registry = CircuitBreakerRegistry()
        for number in range(REMEMBERED_NAMES + 50):
            succeed(CircuitBreaker(f"host {number}", registry=registry))
        gc.collect()
        assert registry.snapshots() == []
        assert len(registry._remembered) == REMEMBERED_NAMES
        newest = CircuitBreaker(f"host {REMEMBERED_NAMES + 49}", registry=registry)
        oldest = CircuitBreaker("host 0", registry=registry)
        assert newest.name != oldest.name
        assert [snapshot.successes for snapshot in registry.snapshots()] == [1, 0]


def _as_dict(snapshot: CircuitSnapshot) -> dict[str, Any]:
    return snapshot._asdict()


def test_the_window_shown_is_what_the_rule_decides_by() -> None:
    """Its rate, its number of calls and its threshold; of several breakers the worst one's."""
    registry, rule = (
        CircuitBreakerRegistry(),
        FailureRate(threshold=0.9, window_calls=4, minimum_calls=4),
    )
    well, ill = (
        make_breaker(registry=registry, failure_rate=rule, failure_threshold=99) for _ in range(2)
    )
    succeed(well, 6)
    succeed(ill, 3)
    fail(ill, 3)
    assert well.get_metrics()["window"] == {"failure_rate": 0.0, "calls": 4, "threshold": 0.9}
    worst = {"failure_rate": 0.75, "calls": 4, "threshold": 0.9}
    assert ill.get_metrics()["window"] == worst
    assert registry.get_all_metrics()["search"]["window"] == worst
    (snapshot,) = registry.snapshots()
    assert snapshot.window == (3, 4, 0.9)


def test_the_window_shown_forgets_calls_that_are_older() -> None:
    """No call is needed for that."""
    clock = FakeClock()
    breaker = make_breaker(
        clock=clock, failure_rate=FailureRate(window_seconds=30.0), failure_threshold=99
    )
    fail(breaker)
    assert breaker.get_metrics()["window"]["calls"] == 1
    clock.advance(31.0)
    assert breaker.get_metrics()["window"]["calls"] == 0


def test_a_late_success_is_not_in_the_window() -> None:
    """It belongs to a period that is over."""
    breaker = make_breaker(failure_rate=FailureRate(minimum_calls=9), failure_threshold=1)
    call = RunningCall(breaker)
    breaker.force_open("between")
    breaker.begin_reset()()
    call.succeed()
    assert breaker.get_metrics()["window"]["calls"] == 0
    assert breaker.machine.totals().successes == 1


def test_a_disabled_circuit_has_nothing_in_its_window() -> None:
    """It never opens, so nothing is decided by the window."""
    breaker = make_breaker(failure_rate=FailureRate())
    breaker.disable("for the test")
    fail(breaker)
    window = {"failure_rate": 0.0, "calls": 0, "threshold": 0.5}
    assert breaker.get_metrics()["window"] == window


def test_a_finalizer_may_scrape_while_the_counts_of_a_freed_breaker_are_kept() -> None:
    """They are kept once."""

    class Scraped(CircuitBreakerRegistry):
        """A registry that is read in the middle of that."""

        def _keep_counters_of(self, name: str) -> None:
            self.snapshots()
            super()._keep_counters_of(name)

    registry = Scraped()
    fail(make_breaker(registry=registry))
    gc.collect()
    registry.snapshots()
    kept = make_breaker(registry=registry)
    assert [snapshot.failures for snapshot in registry.snapshots()] == [1]
    assert kept.total_failures == 0
