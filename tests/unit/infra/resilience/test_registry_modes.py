"""Modes that are set for a name in the registry."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    Mode,
    StateChanged,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import succeed


class TestModesOfNames:
    """A mode of a name applies to every breaker with that name, whenever it was created."""

    @pytest.mark.parametrize("mode", list(Mode))
    def test_it_applies_to_existing_breakers_and_to_later_ones(self, mode: Mode) -> None:
        """They share one reason, and other names are not affected."""
        registry = CircuitBreakerRegistry()
        before = [
            CircuitBreaker("host", registry=registry),
            CircuitBreaker("host", registry=registry),
        ]
        registry.set_mode("host", mode, "maintenance")
        later = [CircuitBreaker("host", registry=registry), registry.get_or_create("host")]
        other = CircuitBreaker("other", registry=registry)

        for breaker in [*before, *later]:
            shown = breaker.get_metrics()["mode"]
            assert (shown["name"], shown["reason"], shown["ends_in"]) == (mode, "maintenance", None)
        assert "mode" not in other.get_metrics()
        assert registry.modes() == {"host": (mode, "maintenance", None)}

    def test_one_that_is_made_later_refuses_its_first_call(self) -> None:
        """No call is admitted before the mode applies."""
        registry = CircuitBreakerRegistry()
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        with pytest.raises(CircuitOpenError, match="host") as refused:
            succeed(registry.get_or_create("host"))
        assert refused.value.reason == "forced open by hand: maintenance"

    def test_it_ends_for_all_at_the_same_time(self) -> None:
        """Later breakers are in the mode for the remaining time only."""
        clock = FakeClock()
        registry = CircuitBreakerRegistry(clock=clock)
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance", 60.0)
        clock.advance(45.0)
        breaker = CircuitBreaker("host", registry=registry, clock=clock)
        assert registry.modes() == {"host": (Mode.FORCED_OPEN, "maintenance", 15.0)}
        assert breaker.get_metrics()["mode"]["ends_in"] == 15.0
        clock.advance(15.0)
        assert breaker.is_half_open
        assert registry.modes() == {}
        assert CircuitBreaker("host", registry=registry, clock=clock).is_closed

    def test_the_last_one_applies(self) -> None:
        """It also applies to breakers that are created afterwards."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("host", registry=registry)
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance", 60.0)
        registry.set_mode("host", Mode.DISABLED, "a false alarm")
        for each in (breaker, CircuitBreaker("host", registry=registry)):
            assert each.get_metrics()["mode"]["name"] == Mode.DISABLED

    @pytest.mark.parametrize("way", ["reset", "reset_all", "unregister"])
    async def test_it_ends_with(self, way: str) -> None:
        """It does not affect breakers that are created afterwards."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("host", registry=registry)
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        if way == "unregister":
            registry.unregister("host")
        else:
            await (registry.reset("host") if way == "reset" else registry.reset_all())
            assert breaker.is_closed
        assert CircuitBreaker("host", registry=registry).is_closed
        assert registry.modes() == {}

    async def test_a_reset_of_a_name_leaves_the_others_alone(self) -> None:
        """It closes all breakers with that name, and no others."""
        registry = CircuitBreakerRegistry()
        one, two = (
            CircuitBreaker("one", registry=registry),
            CircuitBreaker("two", registry=registry),
        )
        twin = CircuitBreaker("one", registry=registry)
        for name in ("one", "two"):
            registry.set_mode(name, Mode.FORCED_OPEN, "maintenance")
        await registry.reset("one")
        await registry.reset("nobody")
        assert (one.is_closed, twin.is_closed, two.is_open) == (True, True, True)

    async def test_reset_all_ends_modes_of_names_without_a_breaker(self) -> None:
        """Otherwise they would apply again to the next breaker."""
        registry = CircuitBreakerRegistry()
        registry.set_mode("to come", Mode.FORCED_OPEN, "maintenance")
        await registry.reset_all()
        assert CircuitBreaker("to come", registry=registry).is_closed

    @pytest.mark.parametrize(
        ("arguments", "parameter", "error"),
        [
            (("", Mode.SHADOW, "why"), "name", ValueError),
            ((None, Mode.SHADOW, "why"), "name", TypeError),
            (("host", "nonsense", "why"), "nonsense", ValueError),
            (("host", Mode.SHADOW, ""), "reason", ValueError),
            (("host", Mode.SHADOW, "why", 0), "seconds", ValueError),
            (("host", Mode.SHADOW, "why", "60"), "seconds", TypeError),
        ],
    )
    def test_a_bad_value_is_refused_by_name(
        self, arguments: tuple[Any, ...], parameter: str, error: type[Exception]
    ) -> None:
        """No mode is set."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("host", registry=registry)
        with pytest.raises(error, match=parameter):
            registry.set_mode(*arguments)
        assert registry.modes() == {}
        assert "mode" not in breaker.get_metrics()

    def test_a_listener_may_query_the_registry(self) -> None:
        """Listeners are called outside the registry's lock, and may use other threads."""
        registry, asked = CircuitBreakerRegistry(), []

        class Asking:
            def on_state_change(self, _: StateChanged) -> None:
                with ThreadPoolExecutor(1) as threads:
                    asked.append(threads.submit(registry.get_all_metrics).result(60))

        kept = CircuitBreaker("host", registry=registry, listeners=[Asking()])
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        assert (kept.is_open, len(asked)) == (True, 1)

    def test_a_breaker_that_starts_in_a_mode_notifies_no_listener(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Otherwise clients created for each request would flood the log."""
        registry, listener = CircuitBreakerRegistry(), RecordingListener()
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        for breaker in (
            CircuitBreaker("host", registry=registry, listeners=[listener]),
            registry.get_or_create("host", listeners=[listener]),
        ):
            assert breaker.is_open
        registry.register(CircuitBreaker("host", registry=None, listeners=[listener]))
        assert (listener.events, caplog.records) == ([], [])
        assert registry.recent_transitions() == []
        assert [snapshot.state_changes for snapshot in registry.snapshots()] == [{}]

    async def test_modes_that_have_ended_are_forgotten(self) -> None:
        """Otherwise they would slow down the creation of every later breaker."""
        clock = FakeClock()
        registry = CircuitBreakerRegistry(clock=clock)
        for number in range(100):
            registry.set_mode(f"host {number}", Mode.SHADOW, "a look", 1.0)
        clock.advance(1.0)
        registry.set_mode("another", Mode.SHADOW, "a look")
        assert list(registry._modes.given) == ["another"]


class TestRecentOrders:
    """The registry remembers which modes were set for a name, and its resets."""

    async def test_modes_and_resets_are_remembered_with_their_reasons(self) -> None:
        """The newest first, also for names without a breaker."""
        registry = CircuitBreakerRegistry()
        registry.set_mode("host", Mode.SHADOW, "trying it", 60.0)
        await registry.reset("host", "reset by hand: seen enough")
        await registry.reset("other")

        assert [order[1:] for order in registry.recent_orders()] == [
            ("other", None, "reset by hand", None),
            ("host", None, "reset by hand: seen enough", None),
            ("host", Mode.SHADOW, "trying it", 60.0),
        ]

    def test_only_the_last_twenty_are_remembered(self) -> None:
        """Orders take no more memory, however many there are."""
        registry = CircuitBreakerRegistry()
        for number in range(25):
            registry.set_mode(f"host-{number}", Mode.DISABLED, "maintenance")

        assert [order.name for order in registry.recent_orders()] == [
            f"host-{number}" for number in reversed(range(5, 25))
        ]
