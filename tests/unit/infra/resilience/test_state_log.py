"""The log: one line per transition, and at most one per second about refusals."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
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
STANDARD_FIELDS = {*logging.makeLogRecord({}).__dict__, "message", "asctime"}


class Keeper(logging.Handler):
    """Keeps every record, and whether the breaker's lock was free at that time.

    Attributes:
        mutex: The breaker's lock, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.mutex: Any = None
        self.free: list[bool] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, and try to take the lock in another thread."""
        self.records.append(record)
        if self.mutex is not None:
            thread = threading.Thread(target=self._try_lock)
            thread.start()
            thread.join()

    def _try_lock(self) -> None:
        self.free.append(self.mutex.acquire(blocking=False))
        if self.free[-1]:
            self.mutex.release()


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """A handler of the package's logger."""
    handler, logger = Keeper(), logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def lines(keeper: Keeper) -> list[logging.LogRecord]:
    """The records of the package's logger, in order."""
    return keeper.records


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in STANDARD_FIELDS}


def _refuse(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(CircuitOpenError):
            breaker.call_sync(str)


def test_an_outage_is_logged_in_four_lines(lines: list[logging.LogRecord]) -> None:
    """Each has a message for people and fields for programs."""
    clock = FakeClock()
    breaker = opened(clock)
    _refuse(breaker, 7)
    clock.advance(60.0)
    fail(breaker)
    clock.advance(120.0)
    succeed(breaker, 2)
    opening = "5 failures in a row; last failures: DownError"
    reopening = "a probe failed; last failures: DownError"
    assert {line.name for line in lines} == {LOGGER}
    assert [(line.levelname, line.getMessage()) for line in lines] == [
        (
            "WARNING",
            f"Circuit breaker 'search' opened: {opening}; probes admitted in 60.0 seconds",
        ),
        ("INFO", "Circuit breaker 'search' is half-open: the next calls are probes"),
        (
            "WARNING",
            f"Circuit breaker 'search' opened: {reopening}; probes admitted in 120.0 seconds",
        ),
        ("INFO", "Circuit breaker 'search' is half-open: the next calls are probes"),
        (
            "INFO",
            "Circuit breaker 'search' closed: 2 probes succeeded; calls rejected meanwhile: 7",
        ),
    ]
    assert _fields(lines[0]) == {
        "breaker": "search",
        "from_state": "closed",
        "to_state": "open",
        "reason": opening,
        "wait_seconds": 60.0,
        "failure_count": 5,
    }
    assert _fields(lines[1]) == {
        "breaker": "search",
        "from_state": "open",
        "to_state": "half_open",
        "reason": "the open wait is over",
    }
    assert _fields(lines[4]) == {
        "breaker": "search",
        "from_state": "half_open",
        "to_state": "closed",
        "reason": "2 probes succeeded",
        "rejections": 7,
    }


def test_calls_log_nothing(lines: list[logging.LogRecord]) -> None:
    """Successes are not logged, nor are failures that do not open the circuit."""
    breaker = make_breaker(failure_threshold=1000)
    succeed(breaker, 100)
    fail(breaker, 100)
    assert lines == []


@pytest.mark.parametrize("gil_enabled", [True, False])
@pytest.mark.parametrize("heard", [True, False])
class TestSummary:
    """The summary of refusals, with and without listeners."""

    @pytest.fixture(autouse=True)
    def _path(self, gil_enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "example_service.infra.resilience.rules.lockfree.GIL_ENABLED", gil_enabled
        )

    def test_there_is_one_a_second_at_most(
        self, heard: bool, lines: list[logging.LogRecord]
    ) -> None:
        """A thousand refusals in three seconds give three lines with the right sum."""
        clock = FakeClock()
        breaker = opened(clock, listeners=[RecordingListener()] if heard else [])
        lines.clear()
        for _ in range(4):
            _refuse(breaker, 250)
            clock.advance(1.0)
        _refuse(breaker, 1)
        assert [line.levelname for line in lines] == ["INFO"] * 4
        assert [line.rejections for line in lines] == [251, 250, 250, 250]  # type: ignore[attr-defined]
        assert _fields(lines[0]) == {
            "breaker": "search",
            "state": "open",
            "rejections": 251,
            "retry_after": 59.0,
        }
        assert lines[0].getMessage() == (
            "Circuit breaker 'search' refuses calls: 251 since the last such line"
        )

    def test_refusals_of_a_full_half_open_circuit_are_summed_up_too(
        self, heard: bool, lines: list[logging.LogRecord]
    ) -> None:
        """They are treated like all other refusals."""
        clock = FakeClock()
        breaker = half_opened(
            clock, half_open_max_calls=1, listeners=[RecordingListener()] if heard else []
        )
        lines.clear()
        RunningCall(breaker)
        _refuse(breaker, 10)
        clock.advance(1.0)
        _refuse(breaker, 10)
        assert [line.rejections for line in lines] == [1, 10]  # type: ignore[attr-defined]
        assert lines[-1].state == "half_open"  # type: ignore[attr-defined]

    def test_each_opening_starts_it_again(
        self, heard: bool, lines: list[logging.LogRecord]
    ) -> None:
        """Refusals of the previous opening are not reported again."""
        clock = FakeClock()
        breaker = opened(clock, listeners=[RecordingListener()] if heard else [])
        _refuse(breaker, 100)
        clock.advance(60.0)
        fail(breaker)
        lines.clear()
        clock.advance(2.0)
        _refuse(breaker, 3)
        assert [line.rejections for line in lines] == [1]  # type: ignore[attr-defined]


def test_the_log_is_written_outside_the_lock(keeper: Keeper) -> None:
    """A handler that blocks does not delay other threads."""
    clock = FakeClock()
    breaker = make_breaker(clock, failure_threshold=1)
    keeper.mutex = breaker.mutex
    fail(breaker)
    clock.advance(1.0)
    _refuse(breaker, 1)
    breaker.force_open("maintenance")
    assert keeper.free == [True, True, True]


def test_log_lines_have_the_wall_time_at_which_they_are_written(
    lines: list[logging.LogRecord],
) -> None:
    """The breaker's clock does not affect them."""
    opened(FakeClock(now=0.0))
    assert abs(lines[0].created - time.time()) < 60
