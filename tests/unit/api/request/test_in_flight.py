"""One timer for the time limits of all requests."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from example_service.api.request.in_flight import InFlight
from example_service.infra.resilience.testing import FakeClock


class FakeLoop:
    """An event loop that only has timers, with a clock that only the test moves."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Store a timer."""
        self.timers.append((self.clock.now + delay, callback))

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, and run the timers that become due."""
        end = self.clock.now + seconds
        while self.timers and min(self.timers)[0] <= end:
            due = self.timers.pop(self.timers.index(min(self.timers)))
            self.clock.now = due[0]
            due[1]()
        self.clock.now = end


class FakeRequest:
    """A request that records when it expires."""

    def __init__(self, clock: FakeClock) -> None:
        self.started_at = clock.now
        self.began = False
        self.expired = False
        self.expired_at: list[float] = []
        self._clock = clock

    def expire(self) -> None:
        """Record the time."""
        self.expired = True
        self.expired_at.append(self._clock.now)


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the event loop."""
    return FakeClock(0.0)


@pytest.fixture
def loop(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    """The running loop."""
    loop = FakeLoop(clock)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


@pytest.fixture
def in_flight(clock: FakeClock) -> InFlight:
    """Requests with a time limit of ten seconds."""
    return InFlight(10.0, clock=clock)


def begin(in_flight: InFlight, loop: Any, clock: FakeClock) -> FakeRequest:
    """Start a request as the middleware does."""
    request = FakeRequest(clock)
    in_flight[request] = None
    if in_flight.watching_loop is not loop:
        in_flight.watch()
    return request


def test_each_request_expires_at_its_own_time(
    in_flight: InFlight, loop: FakeLoop, clock: FakeClock
) -> None:
    """A single timer serves all requests, and none expires late."""
    requests = []
    for _ in range(5):
        requests.append(begin(in_flight, loop, clock))
        loop.pass_seconds(3)
        assert len(loop.timers) == 1
    loop.pass_seconds(100)
    assert [request.expired_at[0] for request in requests] == [10, 13, 16, 19, 22]


def test_a_request_that_ended_does_not_expire(
    in_flight: InFlight, loop: FakeLoop, clock: FakeClock
) -> None:
    """A request expires only if it is still running at its time limit."""
    ended, lasting = (begin(in_flight, loop, clock) for _ in range(2))
    del in_flight[ended]
    loop.pass_seconds(100)
    assert (ended.expired_at, lasting.expired_at) == ([], [10])


def test_a_request_whose_answer_began_does_not_expire(
    in_flight: InFlight, loop: FakeLoop, clock: FakeClock
) -> None:
    """It does not keep later requests from expiring either."""
    streaming, younger = begin(in_flight, loop, clock), begin(in_flight, loop, clock)
    streaming.began = True
    loop.pass_seconds(100)
    assert (streaming.expired_at, younger.expired_at) == ([], [10])


def test_no_timer_runs_without_requests(
    in_flight: InFlight, loop: FakeLoop, clock: FakeClock
) -> None:
    """An idle service does not wake up, and the next request starts the timer again."""
    del in_flight[begin(in_flight, loop, clock)]
    loop.pass_seconds(10)
    assert (loop.timers, in_flight.watching_loop) == ([], None)
    later = begin(in_flight, loop, clock)
    loop.pass_seconds(100)
    assert later.expired_at == [20]


def test_a_new_event_loop_gets_a_timer_of_its_own(
    in_flight: InFlight, loop: FakeLoop, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application may be served in several loops in turn, as tests do."""
    del in_flight[begin(in_flight, loop, clock)]
    other = FakeLoop(clock)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: other)
    request = begin(in_flight, other, clock)
    other.pass_seconds(100)
    assert request.expired_at == [10]


def test_a_request_that_cleans_up_expires_once(
    in_flight: InFlight, loop: FakeLoop, clock: FakeClock
) -> None:
    """Others may expire while it is still in flight."""
    requests = [begin(in_flight, loop, clock)]
    loop.pass_seconds(1)
    requests.append(begin(in_flight, loop, clock))

    loop.pass_seconds(60)

    assert [len(request.expired_at) for request in requests] == [1, 1]


def test_the_oldest_request_can_be_ended_early(
    in_flight: InFlight, loop: FakeLoop, clock: FakeClock
) -> None:
    """The requests end in the order in which they arrived."""
    first, second = (begin(in_flight, loop, clock) for _ in range(2))

    in_flight.expire_oldest()
    assert (first.expired, second.expired) == (True, False)
    in_flight.expire_oldest()
    assert second.expired
    in_flight.expire_oldest()
    assert len(second.expired_at) == 1
