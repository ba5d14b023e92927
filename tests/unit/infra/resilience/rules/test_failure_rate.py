"""`FailureRate`: the share of failures in a window opens the circuit, beside the row of them."""

from typing import Any

import pytest

from example_service.infra.resilience import FailureRate
from example_service.infra.resilience.rules.failure_rate import (
    BUCKETS,
    CallWindow,
    TimeWindow,
)
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.scenes import (
    BadRequestError,
    RunningCall,
    fail,
    half_opened,
    make_breaker,
    succeed,
)


class TestConstruction:
    """What is accepted and what is not."""

    @pytest.mark.parametrize(
        ("parameter", "value", "error"),
        [
            *[("threshold", one, ValueError) for one in (0, 0.0, -0.5, 1.01, float("nan"))],
            *[("threshold", one, TypeError) for one in ("0.5", None, True)],
            *[("window_seconds", one, ValueError) for one in (0.0, -1, float("inf"), float("nan"))],
            *[("window_seconds", one, TypeError) for one in ("30", True)],
            *[("window_calls", one, ValueError) for one in (0, -5)],
            *[("window_calls", one, TypeError) for one in (10.0, "100", True)],
            *[("minimum_calls", one, ValueError) for one in (0, -5, 101)],
            *[("minimum_calls", one, TypeError) for one in (10.0, "100", True, None)],
        ],
    )
    def test_a_bad_value_is_refused_by_name(
        self, parameter: str, value: Any, error: type[Exception]
    ) -> None:
        """The error names the parameter."""
        with pytest.raises(error, match=f"FailureRate.{parameter}"):
            FailureRate(**{parameter: value})

    def test_two_windows_are_one_too_many(self) -> None:
        """It would not be clear which counts."""
        with pytest.raises(ValueError, match="window_seconds or window_calls, not both"):
            FailureRate(window_seconds=30.0, window_calls=100)

    def test_without_a_window_it_has_one_of_a_hundred_calls(self) -> None:
        """The documented defaults."""
        rate = FailureRate()
        assert (rate.threshold, rate.window_calls, rate.minimum_calls) == (0.5, 100, 20)
        assert rate.window_seconds is None
        assert FailureRate(window_seconds=30.0).window_calls is None

    def test_it_is_frozen_and_equal_by_value(self) -> None:
        """A value object, that several breakers may share."""
        assert FailureRate(threshold=0.2) == FailureRate(threshold=0.2)
        with pytest.raises(AttributeError):
            FailureRate().threshold = 0.2  # type: ignore[misc]


class TestThreshold:
    """When the share is too large."""

    @pytest.mark.parametrize(
        ("percent", "calls"),
        [
            (one, calls)
            for calls in (1, 2, 10, 20, 25, 50, 100)
            for one in range(1, 101)
            if one * calls % 100 == 0
        ],
    )
    def test_reaching_it_exactly_opens(self, percent: int, calls: int) -> None:
        """Seven of a hundred are seven percent, however floats multiply."""
        rate = FailureRate(threshold=percent / 100, window_calls=calls, minimum_calls=calls)
        failures = percent * calls // 100
        assert rate.is_reached(failures, calls)
        assert not rate.is_reached(failures - 1, calls)

    def test_it_waits_for_the_minimum_of_calls(self) -> None:
        """One failed call of one is no evidence."""
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

    def test_a_success_may_complete_the_minimum(self) -> None:
        """The share is judged with every result."""
        breaker = make_breaker(
            failure_rate=FailureRate(threshold=0.5, window_calls=4, minimum_calls=4)
        )
        fail(breaker)
        succeed(breaker)
        fail(breaker)
        assert breaker.is_closed
        succeed(breaker)
        assert breaker.is_open
        assert breaker.total_successes == 2

    def test_neutral_outcomes_are_no_results(self) -> None:
        """They neither dilute the share nor make up the minimum."""
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
        """Whichever rule is reached first."""
        breaker = make_breaker(failure_threshold=3, failure_rate=FailureRate())
        succeed(breaker, 97)
        fail(breaker, 3)
        assert breaker.is_open
        assert "3 failures in a row" in breaker.get_metrics()["reason"]


class TestWindowOfCalls:
    """The last so many results."""

    def test_the_oldest_result_leaves_with_each_new_one(self) -> None:
        """Failures that have left do not count any more."""
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
        """Only failures in the window are stored, however many calls come."""
        window = CallWindow(FailureRate(window_calls=1000))
        for number in range(5000):
            window.add(0.0, failed=number % 3 == 0)
        assert len(window._failed) == 333
        assert window.counts(0.0) == (333, 1000)

    def test_successes_may_be_added_in_bulk(self) -> None:
        """They fill the window and make old failures leave, as if they had come one by one."""
        window = CallWindow(FailureRate(window_calls=10, minimum_calls=4))
        window.add(0.0, failed=True)
        window.add_successes(8)
        assert window.counts(0.0) == (1, 9)
        window.add_successes(2)
        assert window.counts(0.0) == (0, 10)


class TestWindowOfTime:
    """The results of the last so many seconds."""

    def test_a_result_leaves_exactly_when_it_is_that_old(self) -> None:
        """Just before it counts, at the edge it does not."""
        window = TimeWindow(FailureRate(window_seconds=60.0))
        window.add(100.0, failed=True)
        window.add(130.0, failed=False)
        assert window.counts(159.0) == (1, 2)
        assert window.counts(160.0) == (0, 1)
        assert window.counts(190.0) == (0, 0)

    def test_only_recent_results_open(self) -> None:
        """The same failures spread over more than the window do not."""
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
        """Successes that leave make the share larger, but nothing has failed meanwhile."""
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
        """Results close to one another are one moment."""
        window = TimeWindow(FailureRate(window_seconds=60.0))
        for number in range(20_000):
            window.add(number / 100, failed=number % 2 == 0)
        assert len(window._buckets) <= BUCKETS + 1
        failures, calls = window.counts(199.99)
        assert calls == pytest.approx(6000, rel=1 / 50)
        assert failures == pytest.approx(3000, rel=1 / 50)


class TestStays:
    """A window belongs to one stay in CLOSED."""

    def test_a_recovery_starts_with_an_empty_window(self) -> None:
        """The failures of the last outage open nothing."""
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
        """The share plays no part in HALF_OPEN."""
        breaker = half_opened(
            FakeClock(),
            failure_threshold=1,
            success_threshold=9,
            failure_rate=FailureRate(threshold=0.01, window_calls=10, minimum_calls=1),
        )
        succeed(breaker, 8)
        assert breaker.is_half_open

    def test_late_outcomes_are_no_results(self) -> None:
        """They belong to a stay that is over."""
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

    def test_overdue_calls_are_failures_of_their_moment(self) -> None:
        """Slow calls and the share work together."""
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
