"""The test kit sets breakers to a state for a block, and keeps them clean between tests."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from math import inf, nan

import pytest

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    StateChanged,
    circuit_breaker_registry,
)
from example_service.infra.resilience.testing import (
    FakeClock,
    RecordingListener,
    half_opened,
    opened,
)

CLOSED, OPEN, HALF_OPEN = CircuitState


async def succeed() -> str:
    """Return an answer."""
    return "answer"


async def fail() -> None:
    """Raise the error of a dependency that is down."""
    raise ConnectionError


async def failed_call(breaker: CircuitBreaker) -> None:
    """Make a call that fails."""
    with pytest.raises(ConnectionError):
        await breaker.call(fail)


def assert_new(breaker: CircuitBreaker) -> None:
    """Check that a breaker is like a new one."""
    new = CircuitBreaker("new", registry=None)
    assert breaker.get_metrics() == new.get_metrics()
    assert breaker.clock is time.monotonic


@pytest.fixture
def breaker(listener: RecordingListener) -> CircuitBreaker:
    """A breaker as in services, with the system clock."""
    return CircuitBreaker("stock", listeners=[listener], registry=None)


# --- the clock


async def test_clock_moves_only_when_advanced() -> None:
    """Time passes only by advancing the clock or by sleeping on it."""
    clock = FakeClock(now=10)
    assert [clock(), clock()] == [10, 10]
    clock.advance(5)
    await clock.sleep(0.5)

    assert clock() == clock.now == 15.5


@pytest.mark.parametrize("seconds", [-1, nan, inf])
def test_clock_never_goes_back(clock: FakeClock, seconds: float) -> None:
    """A monotonic clock cannot be set back."""
    with pytest.raises(ValueError, match=r"^seconds must be at least 0"):
        clock.advance(seconds)

    assert clock() == 1000


# --- the listener


async def test_listener_keeps_every_event_in_order(
    clock: FakeClock, listener: RecordingListener
) -> None:
    """A test can compare all events of an outage, or only its transitions."""
    breaker = CircuitBreaker(
        "stock",
        failure_threshold=1,
        success_threshold=1,
        listeners=[listener],
        clock=clock,
        registry=None,
    )
    await failed_call(breaker)
    with pytest.raises(CircuitOpenError):
        await breaker.call(succeed)
    clock.advance(60)
    await breaker.call(succeed)

    assert [type(event) for event in listener.events] == [
        CallFailed,
        StateChanged,
        CallRejected,
        StateChanged,
        CallSucceeded,
        StateChanged,
    ]
    assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


# --- an open circuit


async def test_opened_circuit_refuses_as_after_an_outage(breaker: CircuitBreaker) -> None:
    """The caller receives the same details, and no extra call is counted."""
    with opened(breaker) as same:
        assert same is breaker
        with pytest.raises(CircuitOpenError) as refusal:
            await breaker.call(succeed)
        metrics = breaker.get_metrics()

    assert refusal.value.state is OPEN
    assert refusal.value.retry_after == pytest.approx(60, abs=10)
    assert refusal.value.reason == metrics["reason"] == "opened by a test"
    assert (metrics["total_rejections"], metrics["opened_count"]) == (1, 1)
    assert (metrics["total_failures"], metrics["last_failure_time"]) == (0, None)
    assert "mode" not in metrics


def test_opened_circuit_waits_as_long_as_asked(
    breaker: CircuitBreaker, clock: FakeClock, listener: RecordingListener
) -> None:
    """Callers and listeners receive the wait that is in effect."""
    with opened(breaker, retry_after=7, clock=clock):
        assert breaker.get_metrics()["retry_after"] == 7
        clock.advance(6)
        assert breaker.is_open
        clock.advance(1)
        assert breaker.is_half_open

    opening = listener.events[0]
    assert isinstance(opening, StateChanged)
    assert opening.wait_seconds == 7


@pytest.mark.parametrize("seconds", [0, -1, nan, inf])
def test_opened_circuit_refuses_an_impossible_wait(breaker: CircuitBreaker, seconds: float) -> None:
    """An invalid wait is an error, and the breaker does not change."""
    with (
        pytest.raises(ValueError, match=r"^retry_after must be above 0"),
        opened(breaker, retry_after=seconds),
    ):
        pytest.fail("the block was entered")

    assert_new(breaker)


async def test_opened_circuit_recovers_by_its_own_rules(
    breaker: CircuitBreaker, clock: FakeClock, listener: RecordingListener
) -> None:
    """The clock of the test replaces the breaker's own, so a test can go through a recovery."""
    with opened(breaker, clock=clock):
        clock.advance(60)
        assert [await breaker.call(succeed) for _ in range(2)] == ["answer", "answer"]
        assert breaker.is_closed

    assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]
    assert_new(breaker)


def test_breaker_is_closed_and_clean_after_the_block(
    breaker: CircuitBreaker, listener: RecordingListener
) -> None:
    """Nothing remains of the block, even if the test failed in it."""
    with pytest.raises(CircuitOpenError), opened(breaker):
        breaker.call_sync(sorted, "")

    assert_new(breaker)
    assert listener.transitions == [(CLOSED, OPEN), (OPEN, CLOSED)]


@pytest.mark.parametrize("state", [opened, half_opened])
async def test_what_was_before_the_block_is_forgotten(
    breaker: CircuitBreaker, state: Callable[[CircuitBreaker], AbstractContextManager[object]]
) -> None:
    """Earlier failures, waits and modes neither affect the block nor return after it."""
    clock = FakeClock()
    with half_opened(breaker, clock=clock):
        await failed_call(breaker)
        with opened(breaker):
            assert breaker.get_metrics()["retry_after"] == 60
        await failed_call(breaker)
    breaker.force_open("forgotten")

    with state(breaker):
        metrics = breaker.get_metrics()
        assert "mode" not in metrics
        assert (metrics["total_failures"], metrics["opened_count"]) == (0, 1)
    assert_new(breaker)


async def test_calls_in_flight_at_the_start_or_end_change_nothing(breaker: CircuitBreaker) -> None:
    """A call from before the block does not affect it, nor a call of the block what follows."""
    release = asyncio.Event()

    async def answer_late() -> None:
        await release.wait()

    async def fail_late() -> None:
        await release.wait()
        raise ConnectionError

    before = [asyncio.create_task(breaker.call(answer_late)) for _ in range(2)]
    await asyncio.sleep(0)
    with half_opened(breaker):
        release.set()
        await asyncio.gather(*before)
        assert breaker.is_half_open
        release.clear()
        probe = asyncio.create_task(breaker.call(fail_late))
        await asyncio.sleep(0)
    release.set()
    with pytest.raises(ConnectionError):
        await probe

    assert breaker.is_closed
    assert breaker.get_metrics()["failure_count"] == 0


# --- a half-open circuit


async def test_half_opened_circuit_admits_only_its_probes(breaker: CircuitBreaker) -> None:
    """It admits as many calls as the breaker allows, and refuses the next."""
    release = asyncio.Event()
    with half_opened(breaker) as same:
        assert same is breaker
        probes = [asyncio.create_task(breaker.call(release.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(CircuitOpenError) as refusal:
            await breaker.call(succeed)
        release.set()
        await asyncio.gather(*probes)

    assert (refusal.value.state, refusal.value.retry_after) == (HALF_OPEN, 0)
    assert_new(breaker)


async def test_half_opened_circuit_closes_when_probes_succeed(
    breaker: CircuitBreaker, listener: RecordingListener
) -> None:
    """No success is counted in advance, and listeners receive the usual transitions."""
    with half_opened(breaker):
        assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN)]
        await breaker.call(succeed)
        assert breaker.is_half_open
        await breaker.call(succeed)
        assert breaker.is_closed

    assert listener.transitions == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


async def test_half_opened_circuit_opens_for_longer_when_a_probe_fails(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    """This is the breaker's second wait, on the clock of the test."""
    with half_opened(breaker, clock=clock):
        await failed_call(breaker)
        assert breaker.is_open
        clock.advance(119)
        assert breaker.get_metrics()["retry_after"] == 1


def test_blocks_of_several_breakers_nest(breaker: CircuitBreaker) -> None:
    """Each breaker has its own state, its own clock and its own end."""
    other = CircuitBreaker("other", registry=None)
    with opened(breaker), half_opened(other, clock=FakeClock()):
        assert (breaker.state, other.state) == (OPEN, HALF_OPEN)

    assert_new(breaker)
    assert_new(other)


# --- the registry


@pytest.fixture(scope="module")
def long_lived() -> Iterator[CircuitBreaker]:
    """A breaker that exists before the test, like one created at import time."""
    breaker = CircuitBreaker("long-lived", failure_threshold=1)
    breaker.force_open("not by a test")
    yield breaker
    assert_new(breaker)


@pytest.mark.parametrize("turn", ["first", "second"])
def test_long_lived_breaker_is_clean_in_every_test(turn: str, long_lived: CircuitBreaker) -> None:
    """It stays in the registry, and tests do not see each other's changes to it."""
    assert circuit_breaker_registry.get("long-lived") is long_lived
    assert_new(long_lived)
    with pytest.raises(TypeError):
        long_lived.call_sync(len, turn, turn)  # type: ignore[call-arg]

    assert long_lived.is_open
