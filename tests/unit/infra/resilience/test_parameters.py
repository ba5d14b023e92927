"""Parameters of a breaker from code and from settings."""

import pickle
from typing import Any

import pytest

from example_service.infra.resilience import Backoff, CircuitBreakerRegistry, FailureRate
from example_service.infra.resilience.parameters import ConfiguredParametersError, combined

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
    assert combined("shop", defaults, configured) == expected


def test_a_registry_combines_them() -> None:
    """A breaker created by the registry has a rule combined from both."""
    registry = CircuitBreakerRegistry()
    registry.configure({"shop": {"failure_rate": {"threshold": 0.2}, "failure_threshold": 7}})

    breaker = registry.get_or_create("shop", failure_rate=CODE, failure_threshold=3)

    assert breaker.failure_threshold == 7
    assert breaker.failure_rate == FailureRate(0.2, window_seconds=60.0, minimum_calls=10)


@pytest.mark.parametrize(
    ("code", "configured", "parameter"),
    [
        (FailureRate(), {"minimum_calls": 101}, "failure_rate.minimum_calls"),
        (None, {"threshold": 0.1, "minimum_calls": 101}, "failure_rate.minimum_calls"),
        (None, {"window_calls": 19}, "failure_rate.window_calls"),
        (CODE, {"window_calls": 9}, "failure_rate.window_calls"),
    ],
)
def test_fields_that_contradict_those_of_the_code_are_refused(
    code: FailureRate | None, configured: dict[str, Any], parameter: str
) -> None:
    """The error names the breaker, the configured field and the reason."""
    with pytest.raises(ConfiguredParametersError) as refused:
        combined("shop", {"failure_rate": code}, {"failure_rate": configured})

    assert refused.value.breaker_name == "shop"
    assert refused.value.parameters == (parameter,)
    assert "minimum_calls must be at most window_calls" in refused.value.reason
    assert str(refused.value).startswith(f"{parameter}, as configured for breaker 'shop': ")
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)  # noqa: S301
