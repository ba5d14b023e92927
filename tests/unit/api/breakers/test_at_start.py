"""Breakers that are there from the start, with parameters of the code and of the settings."""

from functools import partial

import pytest

from example_service.api.breakers.at_start import create_breakers
from example_service.core.exceptions import SettingsError
from example_service.infra.resilience import CircuitBreakerRegistry, FailureRate


def test_each_parameter_that_contradicts_the_code_is_named() -> None:
    """By its variable, whatever characters the breaker's name has, and all of them at once."""
    registry = CircuitBreakerRegistry()
    registry.configure(
        {
            "payment_api": {"failure_rate": {"minimum_calls": 101}},
            "search": {"failure_rate": {"threshold": 0.1, "window_calls": 5}},
            "stock": {"failure_rate": {"minimum_calls": 101}},
        }
    )
    by_seconds = FailureRate(window_seconds=30.0)
    creators = [
        partial(registry.get_or_create, "Payment-API"),
        partial(registry.get_or_create, "search", failure_rate=FailureRate(minimum_calls=7)),
        partial(registry.get_or_create, "stock", failure_rate=by_seconds),
    ]

    with pytest.raises(SettingsError) as refused:
        create_breakers(creators)

    problems = {problem.variable: problem.problem for problem in refused.value.problems}
    assert list(problems) == [
        "CIRCUIT_BREAKERS__PAYMENT_API__FAILURE_RATE__MINIMUM_CALLS",
        "CIRCUIT_BREAKERS__SEARCH__FAILURE_RATE__WINDOW_CALLS",
    ]
    assert [problem.rpartition(": ")[2] for problem in problems.values()] == [
        "FailureRate.minimum_calls must be at most window_calls (100), not 101",
        "FailureRate.minimum_calls must be at most window_calls (5), not 7",
    ]
    assert registry.get("stock").failure_rate == FailureRate(window_seconds=30.0, minimum_calls=101)
