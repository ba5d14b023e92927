"""Listeners are notified outside the lock, and cannot harm the breaker."""

import logging
from dataclasses import dataclass

import pytest

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    StateChanged,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import DownError, RunningCall, fail, make_breaker, succeed


@dataclass
class BrokenHook:
    """A callable that raises; it is not hashable, because it is a dataclass with equality."""

    calls: int = 0

    def __call__(self, _event: CallSucceeded, /) -> None:
        """Fail."""
        self.calls += 1
        raise ValueError("broken")


class ListenerOfHooks:
    """A listener with an attribute as its hook."""

    def __init__(self, hook: BrokenHook) -> None:
        self.on_success = hook


def test_a_hook_without_a_hash_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A hook may be any kind of callable without affecting the guarded call."""
    hook = BrokenHook()
    breaker = CircuitBreaker("search", listeners=[ListenerOfHooks(hook)], registry=None)
    with caplog.at_level(logging.ERROR, logger="example_service.infra.resilience"):
        assert breaker.call_sync(lambda: "fine") == "fine"
        assert breaker.call_sync(lambda: "fine") == "fine"
    assert hook.calls == 2
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].breaker == "search"  # type: ignore[attr-defined]


class BrokenListener:
    """Raises at every event."""

    def __init__(self) -> None:
        self.heard = 0

    def on_state_change(self, event: StateChanged, /) -> None:
        """Fail."""
        self.heard += 1
        raise RuntimeError(event)

    def on_success(self, event: CallSucceeded, /) -> None:
        """Fail."""
        self.heard += 1
        raise RuntimeError(event)

    def on_failure(self, event: CallFailed, /) -> None:
        """Fail."""
        self.heard += 1
        raise RuntimeError(event)

    def on_rejection(self, event: CallRejected, /) -> None:
        """Fail."""
        self.heard += 1
        raise RuntimeError(event)


def test_one_that_raises_keeps_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """The circuit works, the others receive all events, and each broken hook is logged once."""
    broken, recorder = BrokenListener(), RecordingListener()
    clock = FakeClock()
    breaker = make_breaker(clock, failure_threshold=2, listeners=[broken, recorder])
    with caplog.at_level(logging.ERROR, logger="example_service.infra.resilience"):
        for _ in range(3):
            succeed(breaker)
            fail(breaker, 2)
            with pytest.raises(CircuitOpenError):
                succeed(breaker)
            clock.advance(1000.0)
            succeed(breaker, 2)
    assert len(recorder.events) == broken.heard == 3 * (1 + 3 + 1 + 1 + 3)
    assert len(caplog.records) == 4


def test_events_tell_what_happened_in_order() -> None:
    """The list is complete, with durations if calls are timed."""
    clock, recorder = FakeClock(), RecordingListener()
    breaker = make_breaker(clock, failure_threshold=1, success_threshold=1, listeners=[recorder])
    first = RunningCall(breaker)
    clock.advance(2.0)
    first.succeed()
    second = RunningCall(breaker)
    clock.advance(3.0)
    second.fail()
    with pytest.raises(CircuitOpenError):
        succeed(breaker)
    clock.advance(60.0)
    third = RunningCall(breaker)
    with pytest.raises(CircuitOpenError):
        [RunningCall(breaker) for _ in range(3)]
    clock.advance(4.0)
    third.succeed()
    closed, opened, half_open = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
    reason = "1 failure in a row; last failures: DownError"
    assert recorder.events == [
        CallSucceeded("search", 2.0),
        CallFailed("search", "DownError", 3.0),
        StateChanged("search", closed, opened, 60.0, 1, 0, reason),
        CallRejected("search", opened, 60.0),
        StateChanged("search", opened, half_open, None, 1, 1, "the open wait is over"),
        CallRejected("search", half_open, 0.0),
        CallSucceeded("search", 4.0),
        StateChanged("search", half_open, closed, None, 0, 2, "1 probes succeeded"),
    ]


def test_a_failed_result_has_no_error_type() -> None:
    """A failed result raises nothing."""
    recorder = RecordingListener()
    breaker = make_breaker(listeners=[recorder], is_failed_result=bool)
    breaker.call_sync(lambda: 503)
    assert recorder.events == [CallFailed("search", None, 0.0)]


def test_events_are_frozen() -> None:
    """A listener cannot change the event for the next one."""
    event = CallSucceeded("search", 1.0)
    with pytest.raises(AttributeError):
        event.breaker_name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("method", ["call_sync", "reset", "state", "force_open", "get_metrics"])
def test_a_listener_may_call_the_breaker(method: str) -> None:
    """It may even do what causes further events."""

    class ChangingListener:
        """Changes the breaker that has just opened."""

        def on_state_change(self, event: StateChanged, /) -> None:
            """Change the breaker once."""
            if event.to_state is not CircuitState.OPEN or heard:
                return
            heard.append(event)
            if method == "call_sync":
                with pytest.raises(CircuitOpenError):
                    breaker.call_sync(str)
            elif method == "reset":
                with pytest.raises(StopIteration):
                    breaker.reset().send(None)
            elif method == "force_open":
                breaker.force_open("by a listener")
            elif method == "get_metrics":
                breaker.get_metrics()

    heard: list[StateChanged] = []
    breaker = make_breaker(failure_threshold=1, listeners=[ChangingListener()])
    fail(breaker)
    assert len(heard) == 1
    assert breaker.is_closed == (method == "reset")


class OneHook:
    """Receives only transitions."""

    def __init__(self) -> None:
        self.heard: list[StateChanged] = []

    def on_state_change(self, event: StateChanged, /) -> None:
        """Record the event."""
        self.heard.append(event)


def test_one_hook_is_enough() -> None:
    """Hooks that a listener does not have are not called."""
    one = OneHook()
    breaker = make_breaker(failure_threshold=1, listeners=[one])
    succeed(breaker)
    fail(breaker)
    with pytest.raises(CircuitOpenError):
        succeed(breaker)
    assert [event.to_state for event in one.heard] == ["open"]


def test_a_hook_that_would_have_to_be_awaited_is_refused() -> None:
    """Its coroutine would never run."""

    class Waiting:
        """Has one hook, which is a coroutine function."""

        async def on_failure(self, event: object) -> None:
            """Never awaited."""

    with pytest.raises(TypeError, match=r"not awaited.*Waiting\.on_failure.*plain function"):
        make_breaker(listeners=[Waiting()])


def test_a_keyboard_interrupt_passes_through_a_listener() -> None:
    """A keyboard interrupt must not be swallowed."""

    class Interrupting:
        """Is interrupted during an event."""

        def on_failure(self, event: CallFailed, /) -> None:
            """Raise a keyboard interrupt."""
            raise KeyboardInterrupt(event)

    breaker = make_breaker(listeners=[Interrupting()])
    with pytest.raises(KeyboardInterrupt), breaker:
        raise DownError
    assert breaker.in_flight == 0
