"""The errors of the service."""

import copy
import pickle
from collections.abc import Callable

import pytest

from example_service.core.exceptions import (
    CircuitBreakerOpenException,
    ExampleServiceError,
    SettingProblem,
    SettingsError,
)


def pickled(error: Exception) -> Exception:
    """The error as it arrives in another process."""
    copied: Exception = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    return copied


def test_the_table_of_settings_is_aligned() -> None:
    """Each problem is one line with variable, problem and example."""
    error = SettingsError(
        [
            SettingProblem("PORT", "should be a number", "PORT=8000"),
            SettingProblem("ADMIN__TOKEN", "is too short"),
        ]
    )

    assert str(error) == (
        "The settings cannot be used (2 problems):\n"
        "\n"
        "  VARIABLE      PROBLEM             EXAMPLE\n"
        "  PORT          should be a number  PORT=8000\n"
        "  ADMIN__TOKEN  is too short"
    )


def test_an_open_circuit_is_a_503_with_its_own_problem_type() -> None:
    """The exception has everything that an RFC 9457 problem needs."""
    error = CircuitBreakerOpenException(
        "payment", retry_after=2.5, state="open", reason="5 failures in a row"
    )

    assert (error.status_code, error.slug) == (503, "circuit-breaker-open")
    assert (error.breaker_name, error.retry_after, error.state) == ("payment", 2.5, "open")
    assert error.reason == "5 failures in a row"
    assert error.detail == str(error) == "Circuit breaker 'payment' is open; the call was not made."
    assert isinstance(error, ExampleServiceError)


def test_the_message_of_an_open_circuit_can_be_replaced() -> None:
    """A given detail becomes the message, and the name is optional."""
    assert str(CircuitBreakerOpenException(detail="Try later.")) == "Try later."
    assert "A circuit breaker is open" in str(CircuitBreakerOpenException())


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize(
    "error",
    [
        CircuitBreakerOpenException(
            "payment", detail="Later.", retry_after=1.0, state="open", reason="5 failures in a row"
        ),
        SettingsError([SettingProblem("PORT", "is wrong", "PORT=1")]),
    ],
)
def test_errors_survive_being_copied_and_pickled(
    error: Exception, through: Callable[[Exception], Exception]
) -> None:
    """Process pools and test runners pass exceptions on in this way."""
    copied = through(error)

    assert type(copied) is type(error)
    assert vars(copied) == vars(error)
    assert str(copied) == str(error)
