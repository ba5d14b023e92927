"""Parameters of a breaker from code and from settings."""

from typing import Any

import pytest

from example_service.infra.resilience import Backoff, CircuitBreakerRegistry, FailureRate
from example_service.infra.resilience.parameters import combined

CODE = FailureRate(threshold=0.3, window_seconds=60.0, minimum_calls=10)


@pytest.mark.parametrize(
    ("defaults", "configured", "expected"),
    [
        ({}, {}, {}),
        ({"failure_rate": CODE}, {}, {"failure_rate": CODE}),
        ({}, {"failure_rate": {"threshold": 0.2}}, {"failure_rate": FailureRate(threshold=0.2)}),
        (
            {"failure_rate": CODE},
            {"failure_rate": {"threshold": 0.2}},
            {"failure_rate": FailureRate(threshold=0.2, window_seconds=60.0, minimum_calls=10)},
        ),
        (
            {"failure_rate": CODE},
            {"failure_rate": {"window_calls": 50}},
            {"failure_rate": FailureRate(threshold=0.3, window_calls=50, minimum_calls=10)},
        ),
        (
            {"failure_rate": FailureRate(window_calls=200)},
            {"failure_rate": {"window_seconds": 5.0}},
            {"failure_rate": FailureRate(window_seconds=5.0)},
        ),
        ({"failure_rate": None}, {"failure_rate": CODE}, {"failure_rate": CODE}),
        (
            {"backoff": Backoff(multiplier=3.0, jitter=0.5)},
            {"backoff": {"max_timeout": 9.0}},
            {"backoff": Backoff(multiplier=3.0, jitter=0.5, max_timeout=9.0)},
        ),
        ({}, {"backoff": {"multiplier": 1.0}}, {"backoff": Backoff(multiplier=1.0)}),
    ],
    ids=str,
)
def test_fields_that_are_configured_win_over_the_code(
    defaults: dict[str, Any], configured: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The other fields of a rule keep the values from the code."""
    assert combined(defaults, configured) == expected


def test_a_registry_combines_them() -> None:
    """A breaker created by the registry has a rule combined from both."""
    registry = CircuitBreakerRegistry()
    registry.configure({"shop": {"failure_rate": {"threshold": 0.2}, "failure_threshold": 7}})

    breaker = registry.get_or_create("shop", failure_rate=CODE, failure_threshold=3)

    assert breaker.failure_threshold == 7
    assert breaker.failure_rate == FailureRate(0.2, window_seconds=60.0, minimum_calls=10)


def test_fields_that_contradict_each_other_are_refused() -> None:
    """The message names both fields, whatever their sources."""
    with pytest.raises(ValueError, match="minimum_calls must be at most window_calls"):
        combined({"failure_rate": FailureRate()}, {"failure_rate": {"minimum_calls": 101}})
