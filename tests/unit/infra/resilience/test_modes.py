"""`force_open`, `disable` and `shadow`: modes that an operator sets over the rules."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
    FailureRate,
    StateChanged,
)
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import (
    RunningCall,
    fail,
    half_opened,
    make_breaker,
    opened,
    succeed,
)

LOGGER = "example_service.infra.resilience"
MODES = {"force_open": "forced_open", "disable": "disabled", "shadow": "shadow"}

# Functions that create a breaker in each state, with a given clock.
STATES: dict[str, Callable[[FakeClock], CircuitBreaker]] = {
    "closed": make_breaker,
    "open": opened,
    "half_open": half_opened,
}


@pytest.mark.parametrize("method", MODES)
class TestEveryMode:
    """Behaviour of all three modes."""

    @pytest.mark.parametrize(
        ("arguments", "parameter", "error"),
        [
            (("",), "reason", ValueError),
            ((None,), "reason", TypeError),
            ((5,), "reason", TypeError),
            (("why", 0), "seconds", ValueError),
            (("why", -1.0), "seconds", ValueError),
            (("why", float("inf")), "seconds", ValueError),
            (("why", float("nan")), "seconds", ValueError),
            (("why", "60"), "seconds", TypeError),
            (("why", True), "seconds", TypeError),
        ],
    )
    def test_a_bad_value_is_refused_by_name(
        self, method: str, arguments: tuple[Any, ...], parameter: str, error: type[Exception]
    ) -> None:
        """And nothing is set."""
        breaker = make_breaker()
        with pytest.raises(error, match=parameter):
            getattr(breaker, method)(*arguments)
        assert "mode" not in breaker.get_metrics()

    def test_metrics_show_mode_reason_and_end(self, method: str) -> None:
        """`ends_in` counts down, and is None for a mode without an end."""
        clock = FakeClock()
        breaker = make_breaker(clock)
        getattr(breaker, method)("maintenance")
        expected: dict[str, Any] = {
            "name": MODES[method],
            "reason": "maintenance",
            "ends_in": None,
            "would_have_rejected": 0,
        }
        assert breaker.get_metrics()["mode"] == expected
        getattr(breaker, method)("maintenance", seconds=30.0)
        clock.advance(10.0)
        assert breaker.get_metrics()["mode"] == expected | {"ends_in": 20.0}

    def test_it_ends_on_time_at_the_next_read(self, method: str) -> None:
        """This needs no timer."""
        clock = FakeClock()
        breaker = make_breaker(clock)
        getattr(breaker, method)("maintenance", 30.0)
        clock.advance(29.0)
        assert "mode" in breaker.get_metrics()
        clock.advance(1.0)
        assert "mode" not in breaker.get_metrics()

    @pytest.mark.parametrize("state", STATES)
    async def test_reset_ends_it(self, method: str, state: str) -> None:
        """This applies in every state."""
        breaker = STATES[state](FakeClock())
        getattr(breaker, method)("maintenance")
        await breaker.reset()
        assert breaker.get_metrics() == make_breaker().get_metrics()
        fail(breaker, 5)
        assert breaker.is_open

    def test_it_writes_one_line(self, method: str, caplog: pytest.LogCaptureFixture) -> None:
        """The warning says what, why and for how long, as text and in fields."""
        breaker = make_breaker()
        with caplog.at_level(logging.DEBUG, logger=LOGGER):
            getattr(breaker, method)("maintenance", 30.0)
            getattr(breaker, method)("maintenance")
        lines = [record for record in caplog.records if hasattr(record, "mode")]
        assert [line.levelname for line in lines] == ["WARNING", "WARNING"]
        assert lines[0].getMessage() == (
            f"Circuit breaker 'search' set to {MODES[method]} by hand: maintenance; "
            "applies for 30.0 seconds"
        )
        assert lines[1].getMessage().endswith("applies until a reset")
        fields = {
            value: getattr(lines[0], value) for value in ("breaker", "mode", "reason", "seconds")
        }
        assert fields == {
            "breaker": "search",
            "mode": MODES[method],
            "reason": "maintenance",
            "seconds": 30.0,
        }

    def test_monitoring_sees_it(self, method: str) -> None:
        """The registry's snapshot has the mode while it is in effect."""
        clock, registry = FakeClock(), CircuitBreakerRegistry()
        breaker = make_breaker(clock, registry=registry)
        assert registry.snapshots()[0].mode is None
        getattr(breaker, method)("maintenance", 30.0)
        assert registry.snapshots()[0].mode == MODES[method]
        clock.advance(30.0)
        assert registry.snapshots()[0].mode is None

    def test_a_later_mode_replaces_the_earlier_one(self, method: str) -> None:
        """Only one mode is in effect at a time: the last one."""
        for other in MODES:
            breaker = make_breaker()
            getattr(breaker, other)("first")
            getattr(breaker, method)("second")
            metrics = breaker.get_metrics()
            assert metrics["mode"]["name"] == MODES[method]
            assert metrics["mode"]["reason"] == "second"
            assert metrics["state"] == ("open" if method == "force_open" else "closed")

    @pytest.mark.parametrize("state", STATES)
    def test_totals_go_on(self, method: str, state: str) -> None:
        """Earlier counts remain, in the breaker and in monitoring."""
        clock, registry = FakeClock(), CircuitBreakerRegistry()
        breaker = STATES[state](clock)
        registry.register(breaker)
        before = breaker.total_failures
        getattr(breaker, method)("maintenance")
        assert breaker.total_failures == registry.snapshots()[0].failures == before


class TestForcedOpen:
    """No call is made."""

    @pytest.mark.parametrize("state", STATES)
    def test_every_call_is_refused(self, state: str) -> None:
        """Calls are refused without end, with the operator's reason."""
        clock = FakeClock()
        breaker = STATES[state](clock)
        breaker.force_open("provider's maintenance")
        for _ in range(2):
            with pytest.raises(CircuitOpenError, match=r"'search' is open$") as caught:
                breaker.call_sync(str)
            assert caught.value.retry_after is None
            assert caught.value.state is CircuitState.OPEN
            assert caught.value.reason == "forced open by hand: provider's maintenance"
            clock.advance(1e9)
        metrics = breaker.get_metrics()
        assert metrics["retry_after"] is None
        assert metrics["total_rejections"] == 2
        assert metrics["reason"] == "forced open by hand: provider's maintenance"

    def test_with_an_end_it_says_when_and_is_half_open_then(self) -> None:
        """The dependency has to prove that it works again."""
        clock = FakeClock()
        breaker = make_breaker(clock, success_threshold=1)
        breaker.force_open("maintenance", 30.0)
        clock.advance(10.0)
        with pytest.raises(CircuitOpenError) as caught:
            breaker.call_sync(str)
        assert caught.value.retry_after == 20.0
        clock.advance(20.0)
        assert breaker.is_half_open
        succeed(breaker)
        assert breaker.is_closed

    def test_after_its_end_the_failures_before_it_still_count(self) -> None:
        """A failed probe lengthens the wait as if the mode had not been set."""
        clock = FakeClock()
        breaker = half_opened(clock)
        fail(breaker)
        breaker.force_open("maintenance", 30.0)
        clock.advance(30.0)
        fail(breaker)
        metrics = breaker.get_metrics()
        assert (metrics["failure_count"], metrics["retry_after"]) == (7, 240.0)

    def test_calls_in_flight_become_stale(self) -> None:
        """A successful probe does not close a circuit that an operator opened."""
        breaker = half_opened(FakeClock(), success_threshold=1)
        probe = RunningCall(breaker)
        breaker.force_open("maintenance")
        probe.succeed()
        assert breaker.is_open
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    def test_the_change_is_reported(self) -> None:
        """It is reported as an opening, unless the circuit was open already."""
        recorder = RecordingListener()
        breaker = make_breaker(listeners=[recorder])
        breaker.force_open("maintenance", 30.0)
        breaker.force_open("maintenance", 60.0)
        (change,) = recorder.events
        assert isinstance(change, StateChanged)
        assert (change.to_state, change.wait_seconds) == ("open", 30.0)
        assert change.reason == "forced open by hand: maintenance"

    def test_without_an_end_no_wait_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        """Neither listeners nor the log get a wait, because infinity is not a number of seconds."""
        recorder = RecordingListener()
        breaker = make_breaker(listeners=[recorder])
        with caplog.at_level(logging.DEBUG, logger=LOGGER):
            breaker.force_open("maintenance")
        (change,) = recorder.events
        assert isinstance(change, StateChanged)
        assert change.wait_seconds is None
        assert any("not before a reset" in record.getMessage() for record in caplog.records)

    def test_each_refusal_is_reported_and_summed_up(self, caplog: pytest.LogCaptureFixture) -> None:
        """Refusals are handled like those of a circuit that opened by itself."""
        clock, recorder = FakeClock(), RecordingListener()
        breaker = make_breaker(clock, listeners=[recorder])
        breaker.force_open("maintenance")
        recorder.events.clear()
        with caplog.at_level(logging.DEBUG, logger=LOGGER):
            for _ in range(30):
                with pytest.raises(CircuitOpenError):
                    breaker.call_sync(str)
                clock.advance(0.125)
        assert len(recorder.events) == 30
        summaries = [
            record.rejections for record in caplog.records if hasattr(record, "rejections")
        ]
        assert summaries == [9, 8, 8]


class TestDisabled:
    """Every call is admitted."""

    @pytest.mark.parametrize("state", STATES)
    def test_nothing_opens(self, state: str) -> None:
        """No rule opens the circuit, whatever fails; outcomes still count."""
        breaker = STATES[state](FakeClock())
        before = breaker.total_failures
        breaker.disable("false alarm")
        fail(breaker, 50)
        succeed(breaker)
        fail(breaker, 50)
        assert breaker.is_closed
        assert breaker.total_failures == before + 100
        assert breaker.total_rejections == 0

    def test_neither_share_nor_slow_calls_open(self) -> None:
        """The other two rules are disabled as well."""
        clock = FakeClock()
        breaker = make_breaker(
            clock,
            slow_call_duration=1.0,
            failure_rate=FailureRate(threshold=0.1, window_calls=1, minimum_calls=1),
        )
        breaker.disable("false alarm")
        hanging = [RunningCall(breaker) for _ in range(9)]
        clock.advance(2.0)
        fail(breaker, 9)
        assert breaker.is_closed
        assert breaker.total_failures == 18
        for call in hanging:
            call.succeed()
        assert breaker.in_flight == 0

    def test_at_its_end_the_rules_start_from_zero(self) -> None:
        """Failures during the mode do not count, and calls in flight are late."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=2)
        breaker.disable("false alarm", 30.0)
        fail(breaker, 50)
        late = [RunningCall(breaker) for _ in range(2)]
        clock.advance(30.0)
        for call in late:
            call.fail()
        assert breaker.is_closed
        assert breaker.get_metrics()["failure_count"] == 0
        fail(breaker, 2)
        assert breaker.is_open

    def test_disabling_an_open_circuit_closes_it(self) -> None:
        """It is reported as a closing."""
        recorder = RecordingListener()
        breaker = opened(FakeClock(), listeners=[recorder])
        breaker.disable("false alarm")
        assert getattr(recorder.events[-1], "reason", None) == "disabled by hand: false alarm"
        succeed(breaker)


class TestShadow:
    """It applies the rules and reports decisions, but refuses nothing."""

    def test_what_would_be_rejected_runs_and_is_counted(self) -> None:
        """The state and the metrics show the decisions of the rules."""
        breaker = make_breaker(failure_threshold=2)
        breaker.shadow("trying it out")
        fail(breaker, 2)
        assert breaker.is_open
        assert breaker.call_sync(lambda: "ran") == "ran"
        succeed(breaker, 2)
        metrics = breaker.get_metrics()
        assert metrics["state"] == "open"
        assert metrics["total_rejections"] == 0
        assert metrics["total_successes"] == 3
        assert metrics["mode"]["would_have_rejected"] == 3

    def test_outcomes_of_such_calls_change_nothing(self) -> None:
        """They count neither as probes nor as failures in a row."""
        clock = FakeClock()
        breaker = opened(clock, half_open_max_calls=1, success_threshold=1)
        breaker.shadow("trying it out")
        while_open = RunningCall(breaker)
        clock.advance(60.0)
        probe = RunningCall(breaker)
        excess = [RunningCall(breaker) for _ in range(2)]
        excess[0].succeed()
        excess[1].fail()
        while_open.fail()
        assert breaker.is_half_open
        assert breaker.get_metrics()["mode"]["would_have_rejected"] == 3
        probe.succeed()
        assert breaker.is_closed
        assert breaker.in_flight == 0

    def test_monitoring_sees_the_count(self) -> None:
        """Monitoring shows it while the mode is in effect."""
        registry = CircuitBreakerRegistry()
        breaker = make_breaker(failure_threshold=1, registry=registry)
        breaker.shadow("trying it out")
        fail(breaker)
        succeed(breaker, 4)
        assert registry.snapshots()[0].would_have_rejected == 4
        assert registry.snapshots()[0].rejections == 0

    def test_set_while_open_it_leaves_the_circuit_open(self) -> None:
        """The outage continues; only the refusals end."""
        breaker = opened(FakeClock())
        with pytest.raises(CircuitOpenError):
            succeed(breaker)
        breaker.shadow("trying it out")
        assert breaker.is_open
        succeed(breaker)

    def test_setting_it_again_continues_it(self) -> None:
        """Setting it again, for longer or for another reason, keeps the state and the count."""
        clock = FakeClock()
        breaker = opened(clock)
        breaker.shadow("trying it out", 10.0)
        succeed(breaker)
        breaker.shadow("a little longer", 20.0)
        succeed(breaker)
        assert breaker.is_open
        clock.advance(15.0)
        mode = breaker.get_metrics()["mode"]
        assert mode == {
            "name": "shadow",
            "reason": "a little longer",
            "ends_in": 5.0,
            "would_have_rejected": 2,
        }

    def test_setting_it_again_keeps_the_failures_in_a_row(self) -> None:
        """A call in flight can still contribute to it."""
        breaker = make_breaker(failure_threshold=3)
        breaker.shadow("trying it out")
        fail(breaker)
        call = RunningCall(breaker)
        breaker.shadow("a little longer")
        call.fail()
        fail(breaker)
        assert breaker.is_open

    def test_after_it_ends_the_circuit_refuses_calls_again(self) -> None:
        """From then on, an open circuit refuses calls."""
        clock = FakeClock()
        breaker = opened(clock)
        breaker.shadow("trying it out", 30.0)
        succeed(breaker)
        clock.advance(30.0)
        with pytest.raises(CircuitOpenError):
            succeed(breaker)

    def test_at_its_end_a_closed_circuit_works_as_usual(self) -> None:
        """It starts to count failures in a row from zero."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=2)
        breaker.shadow("trying it out", 30.0)
        fail(breaker)
        clock.advance(30.0)
        fail(breaker)
        assert breaker.is_closed
        fail(breaker)
        assert breaker.is_open

    def test_what_was_due_before_its_end_is_processed_first(self) -> None:
        """A call that became overdue during the mode has opened the circuit during the mode."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=1, slow_call_duration=10.0)
        breaker.shadow("trying it out", 20.0)
        RunningCall(breaker)
        clock.advance(25.0)
        assert breaker.is_open

    def test_a_call_that_it_lets_through_can_be_slow(self) -> None:
        """It counts in the totals, but does not affect the state."""
        clock = FakeClock()
        breaker = opened(clock, slow_call_duration=10.0)
        breaker.shadow("trying it out")
        call = RunningCall(breaker)
        clock.advance(20.0)
        assert breaker.total_failures == 6
        call.succeed()
        assert breaker.total_successes == 0
