"""CLOSED: every call runs, and failures in a row open the circuit."""

import asyncio
from collections.abc import Callable

import pytest

from example_service.infra.resilience import CircuitOpenError, StateChanged
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import (
    FORMS,
    PLAIN_FORMS,
    BadRequestError,
    DownError,
    fail,
    make_breaker,
    succeed,
)


@pytest.mark.parametrize("form", FORMS)
class TestEveryFormForCoroutines:
    """Behaviour of all ways to call a coroutine function."""

    async def test_the_result_comes_back(self, form: str) -> None:
        """A guarded call returns what the function returns."""

        async def work() -> str:
            return "done"

        breaker = make_breaker()
        assert await FORMS[form](breaker, work) == "done"
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    async def test_failures_in_a_row_open(self, form: str) -> None:
        """The last failure raises its own exception, and the next call is not made."""
        calls = 0

        async def work() -> None:
            nonlocal calls
            calls += 1
            raise DownError(f"call {calls}")

        breaker = make_breaker(failure_threshold=3)
        for number in (1, 2, 3):
            assert breaker.is_closed
            with pytest.raises(DownError, match=f"call {number}"):
                await FORMS[form](breaker, work)
        assert breaker.is_open
        with pytest.raises(CircuitOpenError, match="'search' is open"):
            await FORMS[form](breaker, work)
        assert calls == 3

    async def test_a_hundred_overlapping_calls_settle_their_own(self, form: str) -> None:
        """Each call counts once, in whatever order the calls end."""
        go_on = asyncio.Event()

        async def work() -> None:
            await go_on.wait()

        breaker = make_breaker()
        calls = [asyncio.ensure_future(FORMS[form](breaker, work)) for _ in range(100)]
        await asyncio.sleep(0)
        assert breaker.in_flight == 100
        go_on.set()
        await asyncio.gather(*calls)
        assert breaker.total_successes == 100
        assert breaker.in_flight == 0


@pytest.mark.parametrize("form", PLAIN_FORMS)
class TestEveryFormForPlainFunctions:
    """Behaviour of all ways to call a plain function."""

    def test_the_result_comes_back(self, form: str) -> None:
        """A guarded call returns what the function returns."""
        breaker = make_breaker()
        assert PLAIN_FORMS[form](breaker, lambda: "done") == "done"
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    def test_failures_in_a_row_open(self, form: str) -> None:
        """The last failure raises its own exception, and the next call is not made."""
        calls = 0

        def work() -> None:
            nonlocal calls
            calls += 1
            raise DownError(f"call {calls}")

        breaker = make_breaker(failure_threshold=3)
        for number in (1, 2, 3):
            assert breaker.is_closed
            with pytest.raises(DownError, match=f"call {number}"):
                PLAIN_FORMS[form](breaker, work)
        assert breaker.is_open
        with pytest.raises(CircuitOpenError, match="'search' is open"):
            PLAIN_FORMS[form](breaker, work)
        assert calls == 3


class TestFailuresInARow:
    """Only uninterrupted failures in a row open the circuit."""

    def test_a_success_ends_the_row_of_failures(self) -> None:
        """With a threshold of five, four failures, a success and four failures do not open."""
        breaker = make_breaker()
        fail(breaker, 4)
        succeed(breaker)
        assert breaker.get_metrics()["failure_count"] == 0
        fail(breaker, 4)
        assert breaker.is_closed
        assert breaker.get_metrics()["failure_count"] == 4
        fail(breaker)
        assert breaker.is_open

    def test_a_threshold_of_one_opens_with_the_first_failure(self) -> None:
        """One failure is enough."""
        breaker = make_breaker(failure_threshold=1)
        fail(breaker)
        assert breaker.is_open

    def test_a_neutral_outcome_does_not_interrupt_the_row(self) -> None:
        """An exception of another type says nothing about the dependency."""
        breaker = make_breaker(failure_threshold=2)
        fail(breaker)
        with pytest.raises(BadRequestError), breaker:
            raise BadRequestError
        fail(breaker)
        assert breaker.is_open

    def test_time_does_not_interrupt_the_row(self) -> None:
        """Failures in a row may be any time apart."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=2)
        fail(breaker)
        clock.advance(1e9)
        fail(breaker)
        assert breaker.is_open

    def test_opening_reports_the_wait_the_count_and_the_reason(self) -> None:
        """One event has everything that an operator on call needs first."""
        recorder = RecordingListener()
        breaker = make_breaker(failure_threshold=2, recovery_timeout=7.0, listeners=[recorder])
        fail(breaker, 2)
        changes = [event for event in recorder.events if isinstance(event, StateChanged)]
        assert [(change.from_state, change.to_state) for change in changes] == [("closed", "open")]
        assert changes[0].wait_seconds == 7.0
        assert changes[0].failure_count == 2
        assert changes[0].reason == "2 failures in a row; last failures: DownError"


class TestWhatCountsAsFailure:
    """The exception types and the two predicates."""

    def test_subclasses_and_tuples_count(self) -> None:
        """`expected_exception` works like an except clause."""

        class HostDownError(DownError):
            """A subclass of the expected type."""

        breaker = make_breaker(failure_threshold=2, expected_exception=(ConnectionError, DownError))
        with pytest.raises(HostDownError), breaker:
            raise HostDownError
        with pytest.raises(ConnectionResetError), breaker:
            raise ConnectionResetError
        assert breaker.is_open

    def test_is_failure_narrows_the_types(self) -> None:
        """An exception that it rejects is neutral, and it never sees other types."""
        asked: list[Exception] = []

        def is_outage(error: Exception) -> bool:
            asked.append(error)
            return str(error) != "404"

        breaker = make_breaker(failure_threshold=1, is_failure=is_outage)
        for error in (DownError("404"), BadRequestError("500")):
            with pytest.raises(type(error)), breaker:
                raise error
        assert [str(error) for error in asked] == ["404"]
        assert breaker.is_closed
        assert breaker.total_failures == 0
        with pytest.raises(DownError), breaker:
            raise DownError("503")
        assert breaker.is_open

    @pytest.mark.parametrize(
        "call",
        [
            lambda breaker: breaker.call_sync(lambda: 503),
            lambda breaker: breaker.protected(lambda: 503)(),
        ],
        ids=["call_sync", "protected"],
    )
    def test_a_failed_result_counts_and_is_returned(self, call: Callable[[object], object]) -> None:
        """A returned response may be a failure as well."""
        breaker = make_breaker(failure_threshold=1, is_failed_result=lambda result: result >= 500)
        assert call(breaker) == 503
        assert breaker.is_open
        assert breaker.total_failures == 1
        assert "failed result" in breaker.get_metrics()["reason"]

    @pytest.mark.parametrize("form", ["@breaker", "@breaker.protected", "call"])
    async def test_a_failed_result_of_a_coroutine_counts_and_is_returned(self, form: str) -> None:
        """An awaited response may be one, too."""

        async def work() -> int:
            return 503

        breaker = make_breaker(failure_threshold=1, is_failed_result=lambda result: result >= 500)
        assert await FORMS[form](breaker, work) == 503
        assert breaker.is_open

    def test_a_result_that_is_fine_is_a_success(self) -> None:
        """The predicate also decides what is a success."""
        breaker = make_breaker(failure_threshold=1, is_failed_result=lambda result: result >= 500)
        assert breaker.call_sync(lambda: 200) == 200
        assert breaker.total_successes == 1

    @pytest.mark.parametrize("gil_enabled", [True, False])
    def test_a_predicate_that_raises_gives_the_permit_back(
        self, gil_enabled: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The predicate's error reaches the caller, and the call is neutral."""
        monkeypatch.setattr(
            "example_service.infra.resilience.rules.lockfree.GIL_ENABLED", gil_enabled
        )

        def broken(_: object) -> bool:
            raise ZeroDivisionError

        judging_results = make_breaker(is_failed_result=broken)
        with pytest.raises(ZeroDivisionError):
            judging_results.call_sync(str)
        judging_errors = make_breaker(is_failure=broken)
        with pytest.raises(ZeroDivisionError), judging_errors:
            raise DownError
        for breaker in (judging_results, judging_errors):
            assert breaker.in_flight == 0
            assert breaker.total_failures == breaker.total_successes == 0
