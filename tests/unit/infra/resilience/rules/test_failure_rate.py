"""`FailureRate`: the failure rate in a window opens the circuit, beside failures in a row."""

from math import inf
from typing import Any

import pytest

from example_service.infra.resilience import FailureRate
from example_service.infra.resilience.rules.failure_rate import (
    BUCKETS,
    CallWindow,
    TimeWindow,
)
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    BadRequestError,
    RunningCall,
    fail,
    half_opened,
    make_breaker,
    succeed,
)


class TestConstruction:
    """Valid and invalid parameters."""

    @pytest.mark.parametrize(
        ("parameter", "value", "error"),
        [
            *[("threshold", value, ValueError) for value in (0, 0.0, -0.5, 1.01, float("nan"))],
            *[("threshold", value, TypeError) for value in ("0.5", None, True)],
            *[
                ("window_seconds", value, ValueError)
                for value in (0.0, -1, float("inf"), float("nan"))
            ],
            *[("window_seconds", value, TypeError) for value in ("30", True)],
            *[("window_calls", value, ValueError) for value in (0, -5)],
            *[("window_calls", value, TypeError) for value in (10.0, "100", True)],
            *[("minimum_calls", value, ValueError) for value in (0, -5, 101)],
            *[("minimum_calls", value, TypeError) for value in (10.0, "100", True, None)],
        ],
    )
    def test_a_bad_value_is_refused_by_name(
        self, parameter: str, value: Any, error: type[Exception]
    ) -> None:
        """The error names the parameter."""
        with pytest.raises(error, match=rf"^FailureRate\.{parameter} "):
            FailureRate(**{parameter: value})

    def test_two_windows_are_refused(self) -> None:
        """It would be unclear which one applies."""
        with pytest.raises(
            ValueError, match=r"^FailureRate takes window_seconds or window_calls, not both$"
        ):
            FailureRate(window_seconds=30.0, window_calls=100)

    def test_without_a_window_it_has_one_of_a_hundred_calls(self) -> None:
        """These are the documented defaults."""
        rate = FailureRate()
        assert (rate.threshold, rate.window_calls, rate.minimum_calls) == (0.5, 100, 20)
        assert rate.window_seconds is None
        assert FailureRate(window_seconds=30.0).window_calls is None

    def test_it_is_frozen_and_equal_by_value(self) -> None:
        """Several breakers may share one object."""
        assert FailureRate(threshold=0.2) == FailureRate(threshold=0.2)
        with pytest.raises(AttributeError):
            FailureRate().threshold = 0.2  # type: ignore[misc]


class TestThreshold:
    """When the failure rate is too high."""

    @pytest.mark.parametrize(
        ("percent", "calls"),
        [
            (number, calls)
            for calls in (1, 2, 10, 20, 25, 50, 100)
            for number in range(1, 101)
            if number * calls % 100 == 0
        ],
    )
    def test_reaching_it_exactly_opens(self, percent: int, calls: int) -> None:
        """Seven of a hundred are seven percent, despite rounding errors of floats."""
        rate = FailureRate(threshold=percent / 100, window_calls=calls, minimum_calls=calls)
        failures = percent * calls // 100
        assert rate.is_reached(failures, calls)
        assert not rate.is_reached(failures - 1, calls)

    def test_it_waits_for_the_minimum_of_calls(self) -> None:
        """A single failed call is not enough evidence."""
        breaker = make_breaker(
            failure_threshold=100,
            failure_rate=FailureRate(threshold=0.5, window_calls=10, minimum_calls=4),
        )
        fail(breaker, 3)
        assert breaker.is_closed
        fail(breaker)
        assert breaker.is_open
        assert breaker.get_metrics()["reason"] == (
            "4 of the last 4 calls failed; last failures: DownError"
        )

    @pytest.mark.parametrize("outcomes", ["FSFS", "FFSS"])
    def test_a_success_may_complete_the_minimum(self, outcomes: str) -> None:
        """The rate is evaluated with every result."""
        breaker = make_breaker(
            failure_rate=FailureRate(threshold=0.5, window_calls=4, minimum_calls=4)
        )
        for outcome in outcomes:
            assert breaker.is_closed
            (fail if outcome == "F" else succeed)(breaker)
        assert breaker.is_open
        assert breaker.total_successes == 2

    def test_neutral_outcomes_are_no_results(self) -> None:
        """They neither lower the rate nor count towards the minimum."""
        breaker = make_breaker(
            failure_rate=FailureRate(threshold=1.0, window_calls=2, minimum_calls=2)
        )
        fail(breaker)
        for _ in range(10):
            RunningCall(breaker).end_with(BadRequestError())
        assert breaker.is_closed
        fail(breaker)
        assert breaker.is_open

    def test_the_row_of_failures_still_opens(self) -> None:
        """The circuit opens with whichever rule is met first."""
        breaker = make_breaker(failure_threshold=3, failure_rate=FailureRate())
        succeed(breaker, 97)
        fail(breaker, 3)
        assert breaker.is_open
        assert "3 failures in a row" in breaker.get_metrics()["reason"]


class TestWindowOfCalls:
    """A window of the last results."""

    def test_the_oldest_result_leaves_with_each_new_one(self) -> None:
        """Failures that have left the window no longer count."""
        breaker = make_breaker(
            failure_threshold=100,
            failure_rate=FailureRate(threshold=0.75, window_calls=4, minimum_calls=4),
        )
        for outcome in "FFSSSFF":
            (fail if outcome == "F" else succeed)(breaker)
            assert breaker.is_closed, outcome
        fail(breaker)
        assert breaker.is_open

    def test_memory_is_bounded_by_the_window(self) -> None:
        """Only failures in the window are stored, whatever the number of calls."""
        window = CallWindow(FailureRate(window_calls=1000))
        for number in range(5000):
            window.add(0.0, failed=number % 3 == 0)
        assert len(window._failed) == 333
        assert window.counts(0.0) == (333, 1000)

    def test_successes_may_be_added_in_bulk(self) -> None:
        """They fill the window and displace old failures as if they had been added singly."""
        window = CallWindow(FailureRate(window_calls=10, minimum_calls=4))
        window.add(0.0, failed=True)
        window.add_successes(8)
        assert window.counts(0.0) == (1, 9)
        window.add_successes(2)
        assert window.counts(0.0) == (0, 10)


class TestWindowOfTime:
    """A window of the results of the last seconds."""

    def test_a_result_leaves_exactly_when_it_is_that_old(self) -> None:
        """It counts just before the limit, but not at the limit."""
        window = TimeWindow(FailureRate(window_seconds=60.0))
        window.add(100.0, failed=True)
        window.add(130.0, failed=False)
        assert window.counts(159.0) == (1, 2)
        assert window.counts(160.0) == (0, 1)
        assert window.counts(190.0) == (0, 0)

    def test_results_that_are_close_in_time_leave_together(self) -> None:
        """They leave with the first of them, however each was counted."""
        window = TimeWindow(FailureRate(window_seconds=60.0))
        for now, failed in ((100.0, True), (100.5, True), (100.9, False)):
            window.add(now, failed=failed)
        window.add_successes(3)
        window.add(101.0, failed=True)
        assert window.counts(159.9) == (3, 7)
        assert window.counts(160.0) == (1, 1)

    def test_successes_that_come_after_all_have_left_are_not_counted(self) -> None:
        """Another thread may count one without the lock just when the last result leaves."""
        window = TimeWindow(FailureRate(window_seconds=60.0))
        window.add(100.0, failed=False)
        assert window.counts(160.0) == (0, 0)
        window.add_successes(1)
        assert window.counts(160.0) == (0, 0)

    def test_a_success_needs_no_lock_while_it_can_open_nothing(self) -> None:
        """It can after a bucket has left, and while failures wait for the minimum of calls."""
        window = TimeWindow(FailureRate(window_seconds=60.0, minimum_calls=3))
        window.add(100.0, failed=False)
        assert window.lock_free_until == 101.0
        window.add(100.25, failed=True)
        assert window.lock_free_until == -inf
        window.add(100.5, failed=False)
        assert window.lock_free_until == 101.0
        window.add(159.5, failed=False)
        assert window.lock_free_until == 160.0

    def test_only_recent_results_open(self) -> None:
        """The same failures do not open it if they are spread over more than the window."""
        clock = FakeClock()
        rate = FailureRate(threshold=0.5, window_seconds=60.0, minimum_calls=4)
        breaker = make_breaker(clock, failure_threshold=100, failure_rate=rate)
        for _ in range(20):
            fail(breaker)
            clock.advance(20.0)
        fail(breaker)
        assert breaker.is_closed
        fail(breaker)
        assert breaker.is_open
        assert "4 of the last 4 calls failed" in breaker.get_metrics()["reason"]

    def test_the_passing_of_time_alone_opens_nothing(self) -> None:
        """The rate rises when successes leave, but no call has failed in the meantime."""
        clock = FakeClock()
        rate = FailureRate(threshold=0.5, window_seconds=60.0, minimum_calls=2)
        breaker = make_breaker(clock, failure_threshold=100, failure_rate=rate)
        succeed(breaker, 10)
        clock.advance(30.0)
        fail(breaker, 9)
        clock.advance(40.0)
        assert breaker.is_closed
        succeed(breaker)
        assert breaker.is_open

    def test_memory_does_not_grow_with_traffic(self) -> None:
        """Results that are close in time are stored together."""
        window = TimeWindow(FailureRate(window_seconds=60.0))
        for number in range(20_000):
            window.add(number / 100, failed=number % 2 == 0)
        assert len(window._buckets) <= BUCKETS + 1
        failures, calls = window.counts(199.99)
        assert calls == pytest.approx(6000, rel=1 / 50)
        assert failures == pytest.approx(3000, rel=1 / 50)


class TestStays:
    """A window belongs to one period in CLOSED."""

    def test_a_recovery_starts_with_an_empty_window(self) -> None:
        """The failures of the last outage no longer count."""
        clock = FakeClock()
        breaker = half_opened(
            clock,
            failure_threshold=3,
            success_threshold=1,
            failure_rate=FailureRate(threshold=0.75, window_calls=4, minimum_calls=4),
        )
        succeed(breaker)
        assert breaker.is_closed
        fail(breaker, 2)
        assert breaker.is_closed
        succeed(breaker)
        fail(breaker)
        assert breaker.is_open

    def test_probes_are_judged_one_by_one(self) -> None:
        """The failure rate does not apply in HALF_OPEN."""
        breaker = half_opened(
            FakeClock(),
            failure_threshold=1,
            success_threshold=9,
            failure_rate=FailureRate(threshold=0.01, window_calls=10, minimum_calls=1),
        )
        succeed(breaker, 8)
        assert breaker.is_half_open

    def test_late_outcomes_are_no_results(self) -> None:
        """They belong to a period that has ended."""
        clock = FakeClock()
        breaker = make_breaker(
            clock,
            failure_threshold=2,
            success_threshold=1,
            failure_rate=FailureRate(threshold=1.0, window_calls=2, minimum_calls=2),
        )
        late = [RunningCall(breaker) for _ in range(5)]
        fail(breaker, 2)
        clock.advance(60.0)
        succeed(breaker)
        for call in late:
            call.fail()
        assert breaker.is_closed

    def test_overdue_calls_fail_at_their_deadline(self) -> None:
        """Slow calls count in the failure rate at their deadline."""
        clock = FakeClock()
        breaker = make_breaker(
            clock,
            failure_threshold=100,
            slow_call_duration=5.0,
            failure_rate=FailureRate(threshold=0.5, window_seconds=60.0, minimum_calls=4),
        )
        succeed(breaker, 2)
        RunningCall(breaker)
        RunningCall(breaker)
        clock.advance(64.0)
        assert breaker.is_open
        assert breaker.get_metrics()["retry_after"] == 1.0
