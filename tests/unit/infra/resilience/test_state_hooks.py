"""The documented hooks for tests: `_state`, `_last_failure_time`, `_lock`, `_check_state`."""

from datetime import UTC, datetime, timedelta

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitState
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import fail, make_breaker, opened, succeed


@pytest.mark.parametrize("failure_time_first", [False, True])
async def test_an_opening_in_the_past_is_half_open_now(failure_time_first: bool) -> None:
    """The state and the time of the failure may be set in either order."""
    breaker = CircuitBreaker("search", recovery_timeout=1.0, registry=None)
    failed_at = datetime.now(UTC) - timedelta(seconds=2)
    if failure_time_first:
        breaker._last_failure_time = failed_at
    breaker._state = CircuitState.OPEN
    if not failure_time_first:
        breaker._last_failure_time = failed_at
    async with breaker._lock:
        await breaker._check_state()
    assert breaker.is_half_open


async def test_an_opening_not_long_enough_ago_is_open() -> None:
    """The rest of the wait still has to pass."""
    clock = FakeClock()
    breaker = make_breaker(clock, recovery_timeout=60.0)
    breaker._state = CircuitState.OPEN
    breaker._last_failure_time = datetime.now(UTC) - timedelta(seconds=20)
    async with breaker._lock:
        await breaker._check_state()
    assert breaker.is_open
    assert breaker.get_metrics()["retry_after"] == pytest.approx(40.0, abs=1.0)
    clock.advance(41.0)
    assert breaker.is_half_open


@pytest.mark.parametrize("state", ["closed", "open", "half_open", *CircuitState])
def test_a_state_is_set_and_read_back(state: str) -> None:
    """It can be set by member or by value."""
    breaker = make_breaker()
    breaker._state = CircuitState(state)
    assert breaker._state == breaker.state == state


def test_setting_a_state_is_a_change_like_any_other() -> None:
    """It is reported, and the rules apply to everything that follows."""
    recorder = RecordingListener()
    breaker = make_breaker(success_threshold=1, listeners=[recorder])
    breaker._state = CircuitState.HALF_OPEN
    succeed(breaker)
    assert breaker.is_closed
    breaker._state = CircuitState.OPEN
    breaker._state = CircuitState.CLOSED
    assert [getattr(event, "to_state", "success") for event in recorder.events] == [
        "half_open",
        "success",
        "closed",
        "open",
        "closed",
    ]
    fail(breaker, 4)
    assert breaker.is_closed


def test_the_time_of_the_last_failure_can_be_set_and_forgotten() -> None:
    """It is in UTC; clearing it does not change the time of the opening."""
    breaker = opened(FakeClock())
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    breaker._last_failure_time = None
    assert breaker.get_metrics()["last_failure_time"] is None
    assert breaker.is_open
    breaker._last_failure_time = when
    assert breaker._last_failure_time == when
    assert breaker.get_metrics()["last_failure_time"] == "2026-01-02T03:04:05+00:00"
    assert breaker.is_half_open


def test_the_time_of_a_failure_moves_no_closed_circuit() -> None:
    """A closed circuit has no opening whose time could change."""
    breaker = make_breaker()
    breaker._last_failure_time = datetime(2026, 1, 2, tzinfo=UTC)
    assert breaker.is_closed
