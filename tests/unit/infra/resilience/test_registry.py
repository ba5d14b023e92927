"""The registry: all existing breakers by name."""

import gc
from collections.abc import Callable
from typing import Any

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitState,
    StateChanged,
    circuit_breaker_registry,
)
from example_service.infra.resilience.registry import Registrable
from example_service.infra.resilience.testing import RecordingListener
from tests.unit.infra.resilience.breakers import fail, make_breaker

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class TestWatching:
    """Every breaker is listed automatically, and is gone with its last user."""

    def test_a_breaker_is_in_the_registry_of_the_process_by_default(self) -> None:
        """This needs no code."""
        breaker = CircuitBreaker("registry test: visible")
        assert circuit_breaker_registry.get(breaker.name) is breaker
        hidden = CircuitBreaker("registry test: hidden", registry=None)
        assert hidden.name not in circuit_breaker_registry

    def test_it_is_held_weakly(self) -> None:
        """A breaker that is no longer used is freed."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("brief", registry=registry)
        assert "brief" in registry
        assert len(registry) == 1
        del breaker
        gc.collect()
        assert "brief" not in registry
        assert len(registry) == 0
        assert list(registry) == []
        assert registry.get_all_metrics() == {}
        assert registry.snapshots() == []

    def test_iteration_and_length_are_of_breakers(self) -> None:
        """Several breakers may share a name; `in` checks for names."""
        registry = CircuitBreakerRegistry()
        made = [CircuitBreaker(name, registry=registry) for name in ("a", "b", "a")]
        assert len(registry) == 3
        assert set(registry) == set(made)
        assert "a" in registry
        assert made[0] not in registry
        assert 5 not in registry

    def test_breakers_may_come_and_go_during_iteration(self) -> None:
        """It covers the breakers that existed when it began."""
        registry = CircuitBreakerRegistry()
        made = [CircuitBreaker(str(number), registry=registry) for number in range(10)]
        seen = 0
        for breaker in registry:
            made.append(CircuitBreaker(f"made beside {breaker.name}", registry=registry))
            seen += 1
        assert seen == 10


class TestHolding:
    """The registry keeps breakers that are registered explicitly."""

    def test_a_registered_breaker_is_kept_alive(self) -> None:
        """It is kept until it is unregistered."""
        registry = CircuitBreakerRegistry()
        registry.register(CircuitBreaker("held", registry=registry))
        registry.register(make_breaker())
        gc.collect()
        assert {breaker.name for breaker in registry} == {"held", "search"}
        registry.unregister("held")
        gc.collect()
        assert {breaker.name for breaker in registry} == {"search"}

    def test_registering_twice_changes_nothing(self) -> None:
        """It is still a single breaker."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("held", registry=registry)
        registry.register(breaker)
        registry.register(breaker)
        assert len(registry) == 1

    def test_get_finds_the_registered_one_first_and_else_the_oldest(self) -> None:
        """A breaker for a single request does not get in the way."""
        registry = CircuitBreakerRegistry()
        oldest, newest = (
            CircuitBreaker("x", registry=registry),
            CircuitBreaker("x", registry=registry),
        )
        assert registry.get("x") is oldest
        registry.register(newest)
        assert registry.get("x") is newest

    def test_unregistering_what_is_not_there_is_an_error(self) -> None:
        """The message lists the existing names."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("known", registry=registry)
        with pytest.raises(KeyError, match=r"no circuit breaker named 'unknown'; known: known"):
            registry.unregister("unknown")
        assert breaker.name in registry

    def test_an_unregistered_breaker_keeps_working_unlisted(self) -> None:
        """Code that has a reference can keep using it."""
        registry = CircuitBreakerRegistry()
        breaker = CircuitBreaker("x", registry=registry, failure_threshold=1)
        registry.unregister("x")
        with pytest.raises(ValueError, match="down"), breaker:
            raise ValueError("down")
        assert breaker.is_open
        assert registry.snapshots() == []

    def test_unregistering_where_it_was_made_leaves_it_where_it_was_registered(self) -> None:
        """A breaker may be in two registries; the later one records its transitions."""
        first, second = CircuitBreakerRegistry(), CircuitBreakerRegistry()
        breaker = CircuitBreaker("x", registry=first)
        second.register(breaker)
        first.unregister("x")
        assert list(first) == []
        assert list(second) == [breaker]
        breaker.force_open("maintenance")
        ((_, change),) = second.recent_transitions()
        assert change.to_state is OPEN
        assert first.recent_transitions() == []


class TestGet:
    """Looking up breakers by name."""

    def test_the_error_for_an_unknown_name_names_living_breakers_only(self) -> None:
        """A name is forgotten with its last breaker."""
        registry = CircuitBreakerRegistry()
        kept = CircuitBreaker("kept", registry=registry)
        gone = CircuitBreaker("gone", registry=registry)
        del gone
        gc.collect()
        with pytest.raises(KeyError, match=r"known: kept'?\"?$"):
            registry.get("other")
        assert kept.name in registry

    def test_an_empty_registry_says_so(self) -> None:
        """The message does not end with an empty list."""
        with pytest.raises(KeyError, match="known: none"):
            CircuitBreakerRegistry().get("x")


class TestGetOrCreate:
    """Breakers created by name, with settings applied."""

    def test_it_creates_one_and_keeps_it_alive(self) -> None:
        """The second call returns the same one, whatever the defaults."""
        registry = CircuitBreakerRegistry()
        first = id(registry.get_or_create("payment", failure_threshold=3))
        gc.collect()
        again = registry.get_or_create("payment", failure_threshold=4)
        assert id(again) == first
        assert again.failure_threshold == 3
        assert list(registry) == [again]

    def test_it_takes_a_living_one(self) -> None:
        """The registry keeps it from then on."""
        registry = CircuitBreakerRegistry()
        living = CircuitBreaker("payment", registry=registry)
        assert registry.get_or_create("payment") is living
        del living
        gc.collect()
        assert "payment" in registry

    @pytest.mark.parametrize("name", ["payment-api", "Payment API", "payment_api", "PAYMENT.API"])
    def test_settings_win_over_defaults(self, name: str) -> None:
        """Names with characters that environment variables cannot have are matched as well."""
        registry = CircuitBreakerRegistry()
        registry.configure({"PAYMENT_API": {"failure_threshold": 9, "recovery_timeout": 1.5}})
        breaker = registry.get_or_create(name, failure_threshold=3, success_threshold=4)
        assert breaker.name == name
        assert breaker.failure_threshold == 9
        assert breaker.recovery_timeout == 1.5
        assert breaker.success_threshold == 4

    def test_settings_are_of_one_name(self) -> None:
        """Other names keep their defaults, and the last `configure` applies."""
        registry = CircuitBreakerRegistry()
        registry.configure({"a": {"failure_threshold": 9}})
        registry.configure({"b": {"failure_threshold": 8}})
        assert registry.get_or_create("a").failure_threshold == 5
        assert registry.get_or_create("b").failure_threshold == 8

    @pytest.mark.parametrize(
        ("parameters", "error"),
        [({"failure_threshold": 0}, ValueError), ({"treshold": 3}, TypeError)],
    )
    def test_bad_parameters_are_errors(
        self, parameters: dict[str, Any], error: type[Exception]
    ) -> None:
        """The errors are those of the constructor, and no breaker is left behind."""
        registry = CircuitBreakerRegistry()
        with pytest.raises(error):
            registry.get_or_create("x", **parameters)
        registry.configure({"x": parameters})
        with pytest.raises(error):
            registry.get_or_create("x")
        assert len(registry) == 0

    def test_configured_listeners_come_besides_the_breaker_s_own(self) -> None:
        """A listener for all breakers does not replace the listeners of a breaker."""
        registry = CircuitBreakerRegistry()
        every, own = RecordingListener(), RecordingListener()
        registry.configure({}, listeners=[every])

        both = registry.get_or_create("both", listeners=[own])
        one = registry.get_or_create("one")

        assert both.listeners == (own, every)
        assert one.listeners == (every,)

    @pytest.mark.parametrize("name", [None, 3])
    def test_an_invalid_name_is_an_error(self, name: Any) -> None:
        """The error is the same as that of the constructor."""
        with pytest.raises(TypeError, match=r"^name must be a string"):
            CircuitBreakerRegistry().get_or_create(name)

    def test_a_breaker_freed_while_it_is_looked_up_is_created_again(self) -> None:
        """The lookup does not fail if another thread drops the last reference."""
        holder: list[CircuitBreaker] = []

        class Registry(CircuitBreakerRegistry):
            """A registry that loses its breaker at the worst moment."""

            def __contains__(self, name: object) -> bool:
                found = super().__contains__(name)
                holder.clear()
                return found

        registry = Registry()
        holder.append(CircuitBreaker("brief", registry=registry))
        assert registry.get_or_create("brief").name == "brief"


@pytest.mark.parametrize(
    "use",
    [
        lambda registry: registry.snapshots(),
        lambda registry: registry.get_all_metrics(),
        len,
        lambda registry: make_breaker(registry=registry),
    ],
)
def test_a_breaker_may_be_freed_at_any_moment(
    use: Callable[[CircuitBreakerRegistry], object],
) -> None:
    """A garbage collection during an operation of the registry does no harm."""
    registry = CircuitBreakerRegistry()
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            circle: list[Any] = [make_breaker(registry=registry)]
            circle.append(circle)
            del circle
            use(registry)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len(registry) == 0


def test_the_fleet_is_notified_of_new_breakers_and_state_changes() -> None:
    """Its processes act as one circuit."""
    registry = CircuitBreakerRegistry()
    heard: list[str] = []

    class Fleet:
        """What a registry notifies."""

        def join(self, breaker: Registrable) -> None:
            """Keep the name."""
            heard.append(breaker.name)

        def on_state_change(self, event: StateChanged, /) -> None:
            """Keep the state."""
            heard.append(event.to_state.value)

    registry.fleet = Fleet()
    breaker = make_breaker(registry=registry, failure_threshold=1)
    fail(breaker)
    assert heard == ["search", "open"]
    assert registry.living("search") == [breaker]
