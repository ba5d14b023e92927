"""The registry: the breakers there are, by name."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitSnapshot,
    CircuitState,
    Mode,
    StateChanged,
    circuit_breaker_registry,
)
from example_service.infra.resilience.registry import REMEMBERED_NAMES
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.scenes import RunningCall, fail, make_breaker, opened, succeed

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def _breaker(name: str, registry: CircuitBreakerRegistry, **parameters: Any) -> CircuitBreaker:
    return CircuitBreaker(name, registry=registry, **parameters)


class TestWatching:
    """Every breaker shows up by itself, and is gone with its last user."""

    def test_a_breaker_is_in_the_registry_of_the_process_unless_told_otherwise(self) -> None:
        """Without a line of code."""
        breaker = CircuitBreaker("registry test: visible")
        assert circuit_breaker_registry.get(breaker.name) is breaker
        hidden = CircuitBreaker("registry test: hidden", registry=None)
        assert hidden.name not in circuit_breaker_registry

    def test_it_is_held_weakly(self) -> None:
        """Nothing is left when nobody uses it any more."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("brief", registry)
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
        """Also where several have one name; names are what `in` asks for."""
        registry = CircuitBreakerRegistry()
        made = [_breaker(name, registry) for name in ("a", "b", "a")]
        assert len(registry) == 3
        assert set(registry) == set(made)
        assert "a" in registry
        assert made[0] not in registry
        assert 5 not in registry

    def test_breakers_may_come_and_go_during_iteration(self) -> None:
        """It goes over those there were when it began."""
        registry = CircuitBreakerRegistry()
        made = [_breaker(str(number), registry) for number in range(10)]
        seen = 0
        for one in registry:
            made.append(_breaker(f"made beside {one.name}", registry))
            seen += 1
        assert seen == 10


class TestHolding:
    """Registered by hand means held."""

    def test_a_registered_breaker_is_held(self) -> None:
        """Until it is unregistered."""
        registry = CircuitBreakerRegistry()
        registry.register(_breaker("held", registry))
        registry.register(make_breaker())
        gc.collect()
        assert {one.name for one in registry} == {"held", "scene"}
        registry.unregister("held")
        gc.collect()
        assert {one.name for one in registry} == {"scene"}

    def test_registering_twice_changes_nothing(self) -> None:
        """It is still one breaker."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("held", registry)
        registry.register(breaker)
        registry.register(breaker)
        assert len(registry) == 1

    def test_get_finds_the_registered_one_first_and_else_the_oldest(self) -> None:
        """A breaker for a single request does not get into the way."""
        registry = CircuitBreakerRegistry()
        oldest, newest = _breaker("x", registry), _breaker("x", registry)
        assert registry.get("x") is oldest
        registry.register(newest)
        assert registry.get("x") is newest

    def test_unregistering_what_is_not_there_is_an_error(self) -> None:
        """The message names those that there are."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("known", registry)
        with pytest.raises(KeyError, match=r"no circuit breaker named 'unknown'; known: known"):
            registry.unregister("unknown")
        assert breaker.name in registry

    def test_an_unregistered_breaker_works_on_unseen(self) -> None:
        """Whoever holds it may go on using it."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("x", registry, failure_threshold=1)
        registry.unregister("x")
        with pytest.raises(ValueError, match="down"), breaker:
            raise ValueError("down")
        assert breaker.is_open
        assert registry.snapshots() == []

    def test_unregistering_where_it_was_made_leaves_it_where_it_was_registered(self) -> None:
        """A breaker may be in two registries; the later one keeps its changes of state."""
        first, second = CircuitBreakerRegistry(), CircuitBreakerRegistry()
        breaker = _breaker("x", first)
        second.register(breaker)
        first.unregister("x")
        assert list(first) == []
        assert list(second) == [breaker]
        breaker.force_open("maintenance")
        ((_, change),) = second.recent_transitions()
        assert change.to_state is OPEN
        assert first.recent_transitions() == []


class TestGet:
    """Looking up by name."""

    def test_the_error_for_an_unknown_name_names_living_breakers_only(self) -> None:
        """A name whose last breaker is gone is no longer known."""
        registry = CircuitBreakerRegistry()
        kept = _breaker("kept", registry)
        gone = _breaker("gone", registry)
        del gone
        gc.collect()
        with pytest.raises(KeyError, match=r"known: kept'?\"?$"):
            registry.get("other")
        assert kept.name in registry

    def test_an_empty_registry_says_so(self) -> None:
        """Rather than leave a blank."""
        with pytest.raises(KeyError, match="known: none"):
            CircuitBreakerRegistry().get("x")


class TestGetOrCreate:
    """Breakers made by name, with settings applied."""

    def test_it_makes_one_and_holds_it(self) -> None:
        """The second time it is the same, whatever the defaults."""
        registry = CircuitBreakerRegistry()
        first = id(registry.get_or_create("payment", failure_threshold=3))
        gc.collect()
        again = registry.get_or_create("payment", failure_threshold=4)
        assert id(again) == first
        assert again.failure_threshold == 3
        assert list(registry) == [again]

    def test_it_takes_a_living_one(self) -> None:
        """And holds it from then on."""
        registry = CircuitBreakerRegistry()
        living = _breaker("payment", registry)
        assert registry.get_or_create("payment") is living
        del living
        gc.collect()
        assert "payment" in registry

    @pytest.mark.parametrize("name", ["payment-api", "Payment API", "payment_api", "PAYMENT.API"])
    def test_settings_win_over_defaults(self, name: str) -> None:
        """Under every spelling of a name that an environment variable cannot have."""
        registry = CircuitBreakerRegistry()
        registry.configure({"PAYMENT_API": {"failure_threshold": 9, "recovery_timeout": 1.5}})
        breaker = registry.get_or_create(name, failure_threshold=3, success_threshold=4)
        assert breaker.name == name
        assert breaker.failure_threshold == 9
        assert breaker.recovery_timeout == 1.5
        assert breaker.success_threshold == 4

    def test_settings_are_of_one_name(self) -> None:
        """Others keep their defaults, and the last `configure` counts."""
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
        """As at the constructor, and nothing is left behind."""
        registry = CircuitBreakerRegistry()
        with pytest.raises(error):
            registry.get_or_create("x", **parameters)
        registry.configure({"x": parameters})
        with pytest.raises(error):
            registry.get_or_create("x")
        assert len(registry) == 0

    def test_configured_listeners_come_besides_the_breaker_s_own(self) -> None:
        """So an observer of all breakers takes none from any of them."""
        registry = CircuitBreakerRegistry()
        every, own = RecordingListener(), RecordingListener()
        registry.configure({}, listeners=[every])

        both = registry.get_or_create("both", listeners=[own])
        one = registry.get_or_create("one")

        assert both.listeners == (own, every)
        assert one.listeners == (every,)

    @pytest.mark.parametrize("name", [None, 3])
    def test_a_name_that_is_none_is_an_error(self, name: Any) -> None:
        """Of the kind that the constructor raises."""
        with pytest.raises(TypeError, match=r"^name must be a string"):
            CircuitBreakerRegistry().get_or_create(name)

    def test_a_breaker_freed_while_it_is_looked_up_is_made_anew(self) -> None:
        """It never fails because another thread let go of the last reference."""
        holder: list[CircuitBreaker] = []

        class Registry(CircuitBreakerRegistry):
            """Loses its breaker at the worst moment."""

            def __contains__(self, name: object) -> bool:
                found = super().__contains__(name)
                holder.clear()
                return found

        registry = Registry()
        holder.append(_breaker("brief", registry))
        assert registry.get_or_create("brief").name == "brief"


class TestMonitoring:
    """What health checks and metrics read."""

    def test_one_breaker_is_shown_as_it_is(self) -> None:
        """The same dictionary as its own."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("x", registry)
        succeed(breaker, 3)
        assert registry.get_all_metrics() == {"x": breaker.get_metrics()}

    def test_breakers_of_one_name_add_up(self) -> None:
        """Counters are summed; of states and waits the worst is shown."""
        registry, clock = CircuitBreakerRegistry(), FakeClock()
        first = make_breaker(clock, registry=registry)
        second = make_breaker(clock, registry=registry, failure_threshold=2)
        succeed(first, 6)
        fail(second, 2)
        with pytest.raises(CircuitOpenError):
            succeed(second)
        RunningCall(first)
        metrics = registry.get_all_metrics()["scene"]
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
                "name": "scene",
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
        """Nothing is divided by zero."""
        registry = CircuitBreakerRegistry()
        both = [make_breaker(registry=registry) for _ in range(2)]
        metrics = registry.get_all_metrics()["scene"]
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
        """Open before half-open before closed."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry) for _ in states]
        for breaker, state in zip(breakers, states, strict=True):
            breaker._state = state
        assert registry.snapshots()[0].state is worst
        assert registry.get_all_metrics()["scene"]["state"] == worst

    @pytest.mark.parametrize("set_on", [0, 1])
    def test_a_mode_of_any_of_them_is_shown(self, set_on: int) -> None:
        """Somebody may have forgotten it."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry, failure_threshold=1) for _ in range(2)]
        fail(breakers[1 - set_on])
        breakers[set_on].disable("forgotten")
        metrics = registry.get_all_metrics()["scene"]
        assert metrics["state"] == "open"
        assert metrics["mode"]["reason"] == "forgotten"

    def test_of_two_modes_that_of_the_worst_state_is_shown(self) -> None:
        """It is the one that refuses calls."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry) for _ in range(3)]
        breakers[0].disable("one")
        breakers[1].force_open("two")
        breakers[2].disable("three")
        assert registry.get_all_metrics()["scene"]["mode"]["reason"] == "two"

    @pytest.mark.parametrize("waits", [(10.0, 100.0), (100.0, 10.0)])
    def test_the_longest_wait_is_shown(self, waits: tuple[float, ...]) -> None:
        """Before it is over, not all of them admit calls."""
        registry = CircuitBreakerRegistry()
        kept = [
            opened(FakeClock(), registry=registry, recovery_timeout=seconds) for seconds in waits
        ]
        assert registry.get_all_metrics()["scene"]["retry_after"] == 100.0
        kept[0].force_open("for good")
        assert registry.get_all_metrics()["scene"]["retry_after"] is None

    def test_a_scrape_is_a_look(self) -> None:
        """An open circuit whose wait is over is shown as half-open."""
        registry, clock = CircuitBreakerRegistry(), FakeClock()
        breaker = make_breaker(clock, registry=registry, failure_threshold=1)
        fail(breaker)
        clock.advance(60.0)
        (snapshot,) = registry.snapshots()
        assert snapshot.state is HALF_OPEN
        assert snapshot.state_changes == {(CLOSED, OPEN): 1, (OPEN, HALF_OPEN): 1}

    def test_what_freed_breakers_have_counted_outlives_their_name(self) -> None:
        """Also where the name is taken out of the registry, and comes back."""
        registry = CircuitBreakerRegistry()
        succeed(make_breaker(registry=registry), 100)
        gc.collect()
        breaker = make_breaker(registry=registry)
        registry.unregister("scene")
        registry.register(breaker)
        assert [one.successes for one in registry.snapshots()] == [100]

    def test_what_shadow_mode_lets_through_adds_up(self) -> None:
        """As every figure of several breakers of one name."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry, failure_threshold=1) for _ in range(3)]
        registry.set_mode("scene", Mode.SHADOW, "a look")
        for breaker in breakers:
            fail(breaker)
            succeed(breaker, 2)
        shown = registry.get_all_metrics()["scene"]["mode"]
        assert (shown["name"], shown["would_have_rejected"]) == (Mode.SHADOW, 6)

    async def test_counters_of_monitoring_never_go_down(self) -> None:
        """Neither with a reset nor with the end of a breaker."""
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
        """Whenever another thread lets go of it: with the living, or with those that are gone."""
        freed: list[CircuitBreaker] = []

        class FreeingRegistry(CircuitBreakerRegistry):
            def _bury(self) -> None:
                super()._bury()
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
        """Those of one name too."""
        registry = CircuitBreakerRegistry()
        breakers = [make_breaker(registry=registry, failure_threshold=1) for _ in range(3)]
        for breaker in breakers:
            fail(breaker)
        await registry.reset_all()
        assert [one.is_closed for one in breakers] == [True] * 3

    def test_names_without_a_breaker_are_remembered_up_to_a_limit(self) -> None:
        """Endlessly many names cannot fill the memory; the recent ones go on counting."""
        registry = CircuitBreakerRegistry()
        for number in range(REMEMBERED_NAMES + 50):
            succeed(_breaker(f"host {number}", registry))
        gc.collect()
        assert registry.snapshots() == []
        assert len(registry._remembered) == REMEMBERED_NAMES
        newest = _breaker(f"host {REMEMBERED_NAMES + 49}", registry)
        oldest = _breaker("host 0", registry)
        assert newest.name != oldest.name
        assert [one.successes for one in registry.snapshots()] == [1, 0]


class TestModesOfNames:
    """What is set on a name holds for every breaker that bears it, whenever it was made."""

    @pytest.mark.parametrize("mode", list(Mode))
    def test_it_holds_for_those_that_there_are_and_those_made_later(self, mode: Mode) -> None:
        """With one reason; other names are left alone."""
        registry = CircuitBreakerRegistry()
        before = [_breaker("host", registry), _breaker("host", registry)]
        registry.set_mode("host", mode, "maintenance")
        later = [_breaker("host", registry), registry.get_or_create("host")]
        other = _breaker("other", registry)

        for breaker in [*before, *later]:
            shown = breaker.get_metrics()["mode"]
            assert (shown["name"], shown["reason"], shown["ends_in"]) == (mode, "maintenance", None)
        assert "mode" not in other.get_metrics()
        assert registry.modes() == {"host": (mode, "maintenance", None)}

    def test_one_that_is_made_later_refuses_its_first_call(self) -> None:
        """Nothing slips through in between."""
        registry = CircuitBreakerRegistry()
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        with pytest.raises(CircuitOpenError, match="host") as refused:
            succeed(registry.get_or_create("host"))
        assert refused.value.reason == "forced open by hand: maintenance"

    def test_it_ends_for_all_at_the_same_time(self) -> None:
        """Whoever is made later gets the rest of the time, and nothing after it."""
        clock = FakeClock()
        registry = CircuitBreakerRegistry(clock=clock)
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance", 60.0)
        clock.advance(45.0)
        breaker = _breaker("host", registry, clock=clock)
        assert registry.modes() == {"host": (Mode.FORCED_OPEN, "maintenance", 15.0)}
        assert breaker.get_metrics()["mode"]["ends_in"] == 15.0
        clock.advance(15.0)
        assert breaker.is_half_open
        assert registry.modes() == {}
        assert _breaker("host", registry, clock=clock).is_closed

    def test_the_last_one_holds(self) -> None:
        """Also for those that are made after it."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("host", registry)
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance", 60.0)
        registry.set_mode("host", Mode.DISABLED, "a false alarm")
        for one in (breaker, _breaker("host", registry)):
            assert one.get_metrics()["mode"]["name"] == Mode.DISABLED

    @pytest.mark.parametrize("way", ["reset", "reset_all", "unregister"])
    async def test_it_ends_with(self, way: str) -> None:
        """What is made afterwards is as if it had never been."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("host", registry)
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        if way == "unregister":
            registry.unregister("host")
        else:
            await (registry.reset("host") if way == "reset" else registry.reset_all())
            assert breaker.is_closed
        assert _breaker("host", registry).is_closed
        assert registry.modes() == {}

    async def test_a_reset_of_a_name_leaves_the_others_alone(self) -> None:
        """All breakers of that name are closed, and no other."""
        registry = CircuitBreakerRegistry()
        one, two = _breaker("one", registry), _breaker("two", registry)
        twin = _breaker("one", registry)
        for name in ("one", "two"):
            registry.set_mode(name, Mode.FORCED_OPEN, "maintenance")
        await registry.reset("one")
        await registry.reset("nobody")
        assert (one.is_closed, twin.is_closed, two.is_open) == (True, True, True)

    async def test_reset_all_ends_modes_of_names_that_nobody_bears(self) -> None:
        """They would come back with the next breaker."""
        registry = CircuitBreakerRegistry()
        registry.set_mode("to come", Mode.FORCED_OPEN, "maintenance")
        await registry.reset_all()
        assert _breaker("to come", registry).is_closed

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
        """And nothing is set."""
        registry = CircuitBreakerRegistry()
        breaker = _breaker("host", registry)
        with pytest.raises(error, match=parameter):
            registry.set_mode(*arguments)
        assert registry.modes() == {}
        assert "mode" not in breaker.get_metrics()

    def test_whoever_is_told_may_ask_the_registry(self) -> None:
        """Listeners are called outside of its lock, and ask from other threads too."""
        registry, asked = CircuitBreakerRegistry(), []

        class Asking:
            def on_state_change(self, _: StateChanged) -> None:
                with ThreadPoolExecutor(1) as threads:
                    asked.append(threads.submit(registry.get_all_metrics).result(5))

        kept = _breaker("host", registry, listeners=[Asking()])
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        assert (kept.is_open, len(asked)) == (True, 1)

    def test_nobody_is_told_of_a_breaker_that_begins_in_a_mode(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Clients that are made for each request would drown what else happens."""
        registry, listener = CircuitBreakerRegistry(), RecordingListener()
        registry.set_mode("host", Mode.FORCED_OPEN, "maintenance")
        for breaker in (
            _breaker("host", registry, listeners=[listener]),
            registry.get_or_create("host", listeners=[listener]),
        ):
            assert breaker.is_open
        registry.register(CircuitBreaker("host", registry=None, listeners=[listener]))
        assert (listener.events, caplog.records) == ([], [])
        assert registry.recent_transitions() == []
        assert [one.state_changes for one in registry.snapshots()] == [{}]

    async def test_modes_that_have_ended_are_forgotten(self) -> None:
        """They would cost each breaker that is made from then on."""
        clock = FakeClock()
        registry = CircuitBreakerRegistry(clock=clock)
        for number in range(100):
            registry.set_mode(f"host {number}", Mode.SHADOW, "a look", 1.0)
        clock.advance(1.0)
        registry.set_mode("another", Mode.SHADOW, "a look")
        assert list(registry._modes) == ["another"]


def _as_dict(snapshot: CircuitSnapshot) -> dict[str, Any]:
    return snapshot._asdict()


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
    """A garbage collection inside the registry's own work does no harm."""
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
