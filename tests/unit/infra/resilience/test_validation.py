"""Invalid input to other parts of the breaker: the error says what is wrong and how to fix it."""

from enum import IntEnum
from typing import Any

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    FailureRate,
)


@pytest.mark.parametrize("listeners", [None, 3, object()])
def test_listeners_that_are_no_iterable_are_named(listeners: Any) -> None:
    """The error names the parameter to correct."""
    with pytest.raises(TypeError, match=r"^listeners must be"):
        CircuitBreaker("search", registry=None, listeners=listeners)


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31m", "x" * 501])
@pytest.mark.parametrize("mode", ["force_open", "disable", "shadow"])
def test_a_reason_is_one_short_line(mode: str, reason: str) -> None:
    """It appears unchanged in logs and metrics."""
    breaker = CircuitBreaker("search", registry=None)
    with pytest.raises(ValueError, match=r"^reason must be printable"):
        getattr(breaker, mode)(reason)
    assert "mode" not in breaker.get_metrics()


def test_a_window_is_not_larger_than_memory() -> None:
    """A typo in a setting must be an error instead of exhausting the memory."""
    with pytest.raises(ValueError, match="window_calls must be at most 1000000"):
        FailureRate(window_calls=1_000_001)


@pytest.mark.parametrize(
    "parameter", ["failure_threshold", "success_threshold", "half_open_max_calls"]
)
def test_a_count_has_an_upper_end(parameter: str) -> None:
    """Without the limit, a huge count would fail at the first call, not at the constructor."""
    largest: dict[str, Any] = {parameter: 1_000_000_000}
    assert CircuitBreaker("search", registry=None, **largest).is_closed
    larger: dict[str, Any] = {parameter: 10**20}
    with pytest.raises(ValueError, match=rf"^{parameter} must be at most 1000000000$"):
        CircuitBreaker("search", registry=None, **larger)


class Limit(IntEnum):
    """Thresholds by name."""

    NONE = 0
    FEW = 3


def test_a_count_may_be_a_member_of_an_enumeration() -> None:
    """It is a whole number, too."""
    assert CircuitBreaker("x", failure_threshold=Limit.FEW, registry=None).failure_threshold == 3
    with pytest.raises(ValueError, match="failure_threshold must be at least 1"):
        CircuitBreaker("x", failure_threshold=Limit.NONE, registry=None)


@pytest.mark.parametrize("parameter", ["is_failure", "is_failed_result"])
def test_a_predicate_must_not_be_a_coroutine_function(parameter: str) -> None:
    """Its coroutine is always truthy, so each call would count as a failure."""

    async def never(_: object) -> bool:
        return False

    predicate: dict[str, Any] = {parameter: never}
    with pytest.raises(TypeError, match=rf"^{parameter} is not awaited"):
        CircuitBreaker("search", registry=None, **predicate)


def test_the_synchronous_call_refuses_what_only_await_can_run() -> None:
    """A coroutine that is never awaited would count as a success."""
    breaker = CircuitBreaker("search", registry=None)

    async def work() -> None:
        raise NotImplementedError

    with pytest.raises(TypeError, match="await call"):
        _ = breaker.call_sync(work)
    assert (breaker.total_successes, breaker.in_flight) == (0, 0)


def test_only_breakers_can_be_registered() -> None:
    """The error shows anything else."""
    registry: Any = CircuitBreakerRegistry()
    with pytest.raises(TypeError, match=r"^breaker must be a CircuitBreaker, not 3"):
        registry.register(3)


def test_a_name_cannot_break_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """This applies to the name of the breaker and to that of an exception's type."""
    odd = type("bad\nINFO forged", (Exception,), {})
    breaker = CircuitBreaker("evil\nINFO forged \x1b[31m", failure_threshold=1, registry=None)
    with pytest.raises(odd), breaker:
        raise odd
    with pytest.raises(CircuitOpenError) as refused, breaker:
        pass
    shown = [record.getMessage() for record in caplog.records] + [str(refused.value)]
    assert len(shown) == 2
    assert all(line.isprintable() for line in shown)
