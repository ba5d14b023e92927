"""The most recent transitions, which a registry remembers."""

import gc
import sys
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitState,
    StateChanged,
    circuit_breaker_registry,
)
from example_service.infra.resilience.registry import REMEMBERED_TRANSITIONS
from example_service.infra.resilience.testing import FakeClock, RecordingListener


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    """A separate registry."""
    return CircuitBreakerRegistry()


def fail(breaker: CircuitBreaker) -> None:
    """Make one call that fails."""
    with pytest.raises(ConnectionError), breaker:
        raise ConnectionError


def changes(registry: CircuitBreakerRegistry) -> list[tuple[str, str]]:
    """The remembered transitions: breaker and new state."""
    return [
        (change.breaker_name, change.to_state.value) for _, change in registry.recent_transitions()
    ]


def test_breakers_that_never_change_state_leave_no_transition(
    registry: CircuitBreakerRegistry,
) -> None:
    """Creating breakers and calling them causes no transition."""
    with CircuitBreaker("quiet", registry=registry):
        pass
    assert registry.recent_transitions() == []


async def test_remembered_transitions_are_the_events_of_listeners(
    registry: CircuitBreakerRegistry,
) -> None:
    """Each entry is the event itself, with its reason; the newest comes first."""
    clock, listener = FakeClock(), RecordingListener()
    breaker = CircuitBreaker(
        "search",
        failure_threshold=1,
        success_threshold=1,
        recovery_timeout=5.0,
        listeners=[listener],
        clock=clock,
        registry=registry,
    )
    fail(breaker)
    clock.advance(5)
    async with breaker:
        pass

    heard = [event for event in listener.events if isinstance(event, StateChanged)]
    assert [event for _, event in reversed(registry.recent_transitions())] == heard
    assert changes(registry) == [("search", "closed"), ("search", "half_open"), ("search", "open")]
    assert heard[0].reason == "1 failure in a row; last failures: ConnectionError"


def test_a_change_is_remembered_with_the_wall_time(registry: CircuitBreakerRegistry) -> None:
    """The time is in UTC, whatever the breaker's clock shows."""
    breaker = CircuitBreaker("timed", failure_threshold=1, clock=FakeClock(), registry=registry)
    before = datetime.now(UTC)
    fail(breaker)
    ((at, _),) = registry.recent_transitions()
    assert at.utcoffset() == timedelta(0)
    assert before <= at <= datetime.now(UTC)


def test_a_mode_without_an_end_has_no_wait(registry: CircuitBreakerRegistry) -> None:
    """JSON has no infinity, and the event documents None."""
    breaker = CircuitBreaker("by_hand", registry=registry)
    breaker.force_open("maintenance")
    breaker.disable("done")
    breaker.force_open("once more", seconds=7)
    waits = [change.wait_seconds for _, change in registry.recent_transitions()]
    assert waits == [7.0, None, None]
    assert [change.reason for _, change in registry.recent_transitions()] == [
        "forced open by hand: once more",
        "disabled by hand: done",
        "forced open by hand: maintenance",
    ]


def test_only_the_last_changes_are_remembered(registry: CircuitBreakerRegistry) -> None:
    """A circuit that flaps for a year needs no more memory than after an hour."""
    clock = FakeClock()
    breaker = CircuitBreaker("flapping", failure_threshold=1, clock=clock, registry=registry)
    for number in range(REMEMBERED_TRANSITIONS):
        breaker.force_open(f"time {number}", seconds=1)
        clock.advance(1)
        assert breaker.is_half_open
    kept = registry.recent_transitions()
    assert len(kept) == REMEMBERED_TRANSITIONS
    assert kept[0][1].to_state is CircuitState.HALF_OPEN
    assert kept[1][1].reason == f"forced open by hand: time {REMEMBERED_TRANSITIONS - 1}"
    assert kept[-1][1].reason == f"forced open by hand: time {REMEMBERED_TRANSITIONS // 2}"


def test_what_is_handed_out_is_a_copy(registry: CircuitBreakerRegistry) -> None:
    """Changing the returned list does not affect other callers."""
    fail(CircuitBreaker("once", failure_threshold=1, registry=registry))
    registry.recent_transitions().clear()
    assert changes(registry) == [("once", "open")]


def test_breakers_of_other_registries_and_of_none_are_not_remembered(
    registry: CircuitBreakerRegistry,
) -> None:
    """Each registry remembers only its own, and a breaker without one reports to none."""
    before = circuit_breaker_registry.recent_transitions()
    fail(CircuitBreaker("elsewhere", failure_threshold=1, registry=CircuitBreakerRegistry()))
    fail(CircuitBreaker("nowhere", failure_threshold=1, registry=None))
    assert registry.recent_transitions() == []
    assert circuit_breaker_registry.recent_transitions() == before


def test_a_breaker_registered_by_hand_reports_from_then_on(
    registry: CircuitBreakerRegistry,
) -> None:
    """It behaves like a breaker created with that registry."""
    breaker = CircuitBreaker("late", failure_threshold=1, registry=None)
    registry.register(breaker)
    fail(breaker)
    assert changes(registry) == [("late", "open")]


def test_an_unregistered_breaker_reports_no_more(registry: CircuitBreakerRegistry) -> None:
    """New transitions are not remembered here, but earlier ones stay."""
    twins = [CircuitBreaker("twin", failure_threshold=1, registry=registry) for _ in range(2)]
    fail(twins[0])
    registry.unregister("twin")
    for twin in twins:
        twin.force_open("unseen")
    assert changes(registry) == [("twin", "open")]


def test_unregistering_does_not_silence_a_breaker_in_its_new_registry(
    registry: CircuitBreakerRegistry,
) -> None:
    """A breaker that has moved reports only to its new registry."""
    old = CircuitBreakerRegistry()
    breaker = CircuitBreaker("moved", failure_threshold=1, registry=old)
    registry.register(breaker)
    old.unregister("moved")
    fail(breaker)
    assert changes(registry) == [("moved", "open")]
    assert old.recent_transitions() == []


def test_a_freed_breaker_leaves_only_its_transitions(
    registry: CircuitBreakerRegistry,
) -> None:
    """The transitions of a client that lived for one request can be read afterwards."""
    breaker = CircuitBreaker("gone", failure_threshold=1, registry=registry)
    fail(breaker)
    ref = weakref.ref(breaker)
    del breaker
    gc.collect()
    assert ref() is None
    assert len(registry) == 0
    assert changes(registry) == [("gone", "open")]


def test_changes_in_many_threads_are_all_remembered(registry: CircuitBreakerRegistry) -> None:
    """None is lost or duplicated while other threads read."""
    breakers = [
        CircuitBreaker(f"thread {number}", registry=registry)
        for number in range(REMEMBERED_TRANSITIONS)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for breaker in breakers:
                threads.submit(breaker.force_open, "at once")
            reading = [threads.submit(registry.recent_transitions) for _ in range(200)]
            for job in reading:
                job.result(timeout=120)
    finally:
        sys.setswitchinterval(interval)
    assert Counter(changes(registry)) == {(breaker.name, "open"): 1 for breaker in breakers}


async def test_shadow_rejections_are_never_reset(registry: CircuitBreakerRegistry) -> None:
    """A reset or another mode restarts the count of the mode, but not the lifetime count."""
    breaker = CircuitBreaker("shadowed", failure_threshold=1, registry=registry)
    for times in (2, 3):
        breaker.shadow("to see")
        fail(breaker)
        for _ in range(times):
            async with breaker:
                pass
        (snapshot,) = registry.snapshots()
        assert snapshot.would_have_rejected == times
        assert snapshot.rejections == 0
        await breaker.reset()
    (snapshot,) = registry.snapshots()
    assert (snapshot.would_have_rejected, snapshot.shadow_rejections) == (0, 5)


async def test_shadow_rejections_of_a_freed_breaker_stay_in_the_sum(
    registry: CircuitBreakerRegistry,
) -> None:
    """Counters for monitoring never go down."""
    kept = CircuitBreaker("shadowed", failure_threshold=1, registry=registry)
    gone = CircuitBreaker("shadowed", failure_threshold=1, registry=registry)
    for breaker in (kept, gone):
        breaker.shadow("to see")
        fail(breaker)
        async with breaker:
            pass
    del breaker, gone
    gc.collect()
    (snapshot,) = registry.snapshots()
    assert snapshot.shadow_rejections == 2
