"""The breaker's interface: its parameters, its metrics, and `reset`."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from example_service.infra.resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitState,
    FailureRate,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import (
    BadRequestError,
    DownError,
    RunningCall,
    fail,
    half_opened,
    make_breaker,
    opened,
    succeed,
)

COUNTS = ("failure_threshold", "success_threshold", "half_open_max_calls")
SECONDS = ("recovery_timeout", "probe_timeout", "slow_call_duration")

BAD_VALUES: list[tuple[str, Any, type[Exception]]] = [
    ("name", "", ValueError),
    ("name", None, TypeError),
    ("name", 5, TypeError),
    *[(parameter, value, ValueError) for parameter in COUNTS for value in (0, -1)],
    *[(parameter, value, TypeError) for parameter in COUNTS for value in (1.5, "3", True, None)],
    *[
        (parameter, value, ValueError)
        for parameter in SECONDS
        for value in (0, 0.0, -1.0, float("nan"), float("inf"), -float("inf"))
    ],
    *[
        (parameter, value, TypeError)
        for parameter in SECONDS
        for value in ("60", True, timedelta(seconds=1))
    ],
    ("recovery_timeout", None, TypeError),
    *[
        ("expected_exception", value, TypeError)
        for value in (None, (), "DownError", int, BaseException, KeyboardInterrupt, DownError())
    ],
    ("expected_exception", (DownError, int), TypeError),
    ("expected_exception", [DownError], TypeError),
    ("is_failure", "404", TypeError),
    ("is_failed_result", 503, TypeError),
    ("failure_rate", 0.5, TypeError),
    ("backoff", 2.0, TypeError),
    ("backoff", None, TypeError),
    ("clock", 1000.0, TypeError),
    ("clock", None, TypeError),
    ("registry", {}, TypeError),
    ("listeners", [object()], TypeError),
    ("listeners", [RecordingListener], TypeError),
]


class TestConstruction:
    """Valid and invalid parameters."""

    @pytest.mark.parametrize(("parameter", "value", "error"), BAD_VALUES)
    def test_a_bad_value_is_refused_by_name(
        self, parameter: str, value: Any, error: type[Exception]
    ) -> None:
        """The error names the parameter, and no breaker is registered."""
        registry = CircuitBreakerRegistry()
        given: dict[str, Any] = {"name": "search", "registry": registry, parameter: value}
        with pytest.raises(error, match=parameter):
            CircuitBreaker(given.pop("name"), **given)
        assert len(registry) == 0

    def test_an_unknown_parameter_is_refused(self) -> None:
        """A misspelt name is an error."""
        with pytest.raises(TypeError, match="treshold"):
            CircuitBreaker("search", failure_treshold=3)  # type: ignore[call-arg]

    def test_only_the_name_is_positional(self) -> None:
        """Numbers without a name would be easy to confuse."""
        with pytest.raises(TypeError):
            CircuitBreaker("search", 3)  # type: ignore[call-arg]

    def test_every_default_is_the_documented_one(self) -> None:
        """A breaker with only a name has the documented defaults."""
        breaker = CircuitBreaker("search", registry=None)
        assert breaker.name == "search"
        assert breaker.failure_threshold == 5
        assert breaker.recovery_timeout == 60.0
        assert breaker.success_threshold == 2
        assert breaker.half_open_max_calls == 3
        assert breaker.expected_exception is Exception
        assert breaker.is_failure is None
        assert breaker.is_failed_result is None
        assert breaker.slow_call_duration is None
        assert breaker.failure_rate is None
        assert breaker.backoff == Backoff(multiplier=2.0, max_timeout=None, jitter=0.0)
        assert breaker.probe_timeout == 60.0
        assert breaker.listeners == ()
        assert breaker.clock is time.monotonic

    def test_every_parameter_can_be_read_back(self) -> None:
        """Each property returns the given value."""
        recorder, clock = RecordingListener(), FakeClock()
        given: dict[str, Any] = {
            "failure_threshold": 1,
            "recovery_timeout": 2,
            "success_threshold": 3,
            "half_open_max_calls": 4,
            "expected_exception": (DownError, BadRequestError),
            "is_failure": bool,
            "is_failed_result": callable,
            "slow_call_duration": 5.5,
            "failure_rate": FailureRate(threshold=0.1),
            "backoff": Backoff(jitter=0.1),
            "probe_timeout": 6.5,
            "listeners": (recorder,),
            "clock": clock,
            "registry": CircuitBreakerRegistry(),
        }
        breaker = CircuitBreaker("search", **given)
        assert {name: getattr(breaker, name) for name in given} == given

    def test_parameters_cannot_be_changed(self) -> None:
        """They are read-only properties."""
        breaker = make_breaker()
        with pytest.raises(AttributeError):
            breaker.failure_threshold = 3  # type: ignore[misc]
        with pytest.raises(AttributeError):
            breaker.retries = 3  # type: ignore[attr-defined]

    def test_listeners_may_come_from_any_iterable(self) -> None:
        """A generator is accepted."""
        recorders = [RecordingListener(), RecordingListener()]
        breaker = make_breaker(listeners=iter(recorders))
        assert breaker.listeners == tuple(recorders)

    def test_its_representation_shows_name_and_state(self) -> None:
        """It is meant for debugging, and reading it changes nothing."""
        clock = FakeClock()
        breaker = opened(clock)
        clock.advance(60.0)
        assert repr(breaker) == "<CircuitBreaker 'search' open>"
        assert breaker.is_half_open
        assert repr(breaker) == "<CircuitBreaker 'search' half_open>"


class TestMetrics:
    """`get_metrics()` and the properties that go with it."""

    def test_a_new_breaker_has_counted_nothing(self) -> None:
        """It has exactly the documented keys, each with its initial value."""
        assert make_breaker().get_metrics() == {
            "state": "closed",
            "failure_count": 0,
            "success_count": 0,
            "total_failures": 0,
            "total_successes": 0,
            "total_rejections": 0,
            "last_failure_time": None,
            "failure_rate": 0.0,
            "retry_after": 0.0,
            "opened_count": 0,
            "in_flight": 0,
        }

    def test_everything_shows_in_half_open_state(self) -> None:
        """This includes `reason`, which exists only while the circuit is not closed."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=2)
        succeed(breaker, 6)
        fail(breaker, 2)
        with pytest.raises(Exception, match="is open"):
            succeed(breaker)
        clock.advance(60.0)
        succeed(breaker)
        RunningCall(breaker)
        metrics = breaker.get_metrics()
        failed_at = metrics.pop("last_failure_time")
        assert abs(datetime.now(UTC) - datetime.fromisoformat(failed_at)) < timedelta(minutes=1)
        assert failed_at.endswith("+00:00")
        assert metrics == {
            "state": "half_open",
            "failure_count": 0,
            "success_count": 1,
            "total_failures": 2,
            "total_successes": 7,
            "total_rejections": 1,
            "failure_rate": 2 / 9,
            "retry_after": 0.0,
            "opened_count": 1,
            "in_flight": 1,
            "reason": "2 failures in a row; last failures: DownError",
        }

    @pytest.mark.parametrize("state", ["closed", "open", "half_open", "mode"])
    def test_it_can_be_represented_in_json(self, state: str) -> None:
        """In every state, the metrics are plain types and valid standard JSON."""
        clock = FakeClock()
        breaker = half_opened(clock) if state == "half_open" else opened(clock)
        if state == "closed":
            breaker = make_breaker(clock)
        if state == "mode":
            breaker.force_open("maintenance")
        metrics = breaker.get_metrics()
        assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
        assert type(metrics["state"]) is str

    def test_the_properties_agree(self) -> None:
        """This applies to totals and calls in flight."""
        breaker = opened(FakeClock(), failure_threshold=3)
        with pytest.raises(Exception, match="is open"):
            succeed(breaker)
        assert breaker.total_failures == 3
        assert breaker.total_successes == 0
        assert breaker.total_rejections == 1
        assert breaker.in_flight == 0
        assert (breaker.is_closed, breaker.is_open, breaker.is_half_open) == (False, True, False)
        assert breaker.state is CircuitState.OPEN

    def test_states_are_strings(self) -> None:
        """They compare, format and serialize as their values."""
        assert [str(state) for state in CircuitState] == ["closed", "open", "half_open"]
        assert json.dumps(CircuitState.HALF_OPEN) == '"half_open"'


class TestReset:
    """`await breaker.reset()`."""

    @pytest.mark.parametrize("state", ["closed", "open", "half_open"])
    async def test_it_closes_and_forgets(self, state: str) -> None:
        """Afterwards the breaker shows the same as a new one."""
        clock = FakeClock()
        breaker = half_opened(clock) if state == "half_open" else opened(clock)
        if state == "closed":
            breaker = make_breaker(clock)
            fail(breaker)
        await breaker.reset()
        assert breaker.get_metrics() == make_breaker().get_metrics()

    async def test_calls_in_flight_become_stale(self) -> None:
        """They count in the totals and have no other effect."""
        breaker = make_breaker(failure_threshold=1)
        late = RunningCall(breaker)
        await breaker.reset()
        assert breaker.in_flight == 1
        late.fail()
        assert breaker.is_closed
        assert breaker.get_metrics()["failure_count"] == 0
        assert breaker.total_failures == 1
        assert breaker.in_flight == 0

    async def test_a_probe_in_flight_does_not_close_the_next_recovery(self) -> None:
        """It does not take one of its slots either."""
        clock = FakeClock()
        breaker = half_opened(clock, half_open_max_calls=1, success_threshold=1)
        late = RunningCall(breaker)
        await breaker.reset()
        fail(breaker, 5)
        clock.advance(60.0)
        current = RunningCall(breaker)
        late.succeed()
        assert breaker.is_half_open
        current.succeed()
        assert breaker.is_closed

    async def test_it_forgets_the_backoff(self) -> None:
        """The next outage starts with the shortest wait."""
        breaker = half_opened(FakeClock(), failure_threshold=1)
        fail(breaker)
        assert breaker.get_metrics()["retry_after"] == 120.0
        await breaker.reset()
        fail(breaker)
        assert breaker.get_metrics()["retry_after"] == 60.0

    async def test_only_a_real_change_is_reported(self) -> None:
        """Resetting a closed circuit reports no transition."""
        recorder = RecordingListener()
        breaker = make_breaker(listeners=[recorder], failure_threshold=1)
        await breaker.reset()
        assert recorder.events == []
        fail(breaker)
        await breaker.reset()
        assert [getattr(event, "reason", None) for event in recorder.events][-1] == "reset by hand"

    async def test_what_was_due_before_it_is_processed_first(self) -> None:
        """A call that became overdue before the reset is forgotten like other failures."""
        clock = FakeClock()
        breaker = make_breaker(clock, slow_call_duration=10.0)
        RunningCall(breaker)
        clock.advance(20.0)
        await breaker.reset()
        assert breaker.total_failures == 0
