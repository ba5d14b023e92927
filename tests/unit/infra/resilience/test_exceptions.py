"""`CircuitOpenError`, which a refused caller receives."""

import copy
import pickle
from collections.abc import Callable

import pytest

from example_service.infra.resilience import CircuitOpenError, CircuitState
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    RunningCall,
    half_opened,
    make_breaker,
    opened,
)


def _raised(state: str) -> CircuitOpenError:
    if state == "open":
        breaker = opened(FakeClock())
    elif state == "half-open":
        breaker = half_opened(FakeClock(), half_open_max_calls=1)
        RunningCall(breaker)
    else:
        breaker = make_breaker()
        breaker.force_open("maintenance")
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call_sync(str)
    return caught.value


EXPECTED = {
    "open": (
        CircuitState.OPEN,
        60.0,
        "5 failures in a row; last failures: DownError",
        "Circuit breaker 'search' is open, retry after 60.0 seconds",
    ),
    "half-open": (
        CircuitState.HALF_OPEN,
        0.0,
        "5 failures in a row; last failures: DownError",
        "Circuit breaker 'search' half-open call limit reached",
    ),
    "forced open": (
        CircuitState.OPEN,
        None,
        "forced open by hand: maintenance",
        "Circuit breaker 'search' is open",
    ),
}


def _pickled(protocol: int) -> Callable[[CircuitOpenError], CircuitOpenError]:
    def through_pickle(error: CircuitOpenError) -> CircuitOpenError:
        copied: CircuitOpenError = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
        return copied

    return through_pickle


COPIES: dict[str, Callable[[CircuitOpenError], CircuitOpenError]] = {
    "itself": lambda error: error,
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    **{f"pickle {number}": _pickled(number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("state", EXPECTED)
def test_it_keeps_its_attributes_when_copied_or_pickled(state: str, how: str) -> None:
    """Name, state, wait, reason and message survive copying and pickling."""
    error = COPIES[how](_raised(state))
    expected_state, retry_after, reason, message = EXPECTED[state]
    assert type(error) is CircuitOpenError
    assert error.breaker_name == "search"
    assert error.state is expected_state
    assert error.retry_after == retry_after
    assert error.reason == reason
    assert str(error) == message
    assert repr(error) == f"CircuitOpenError({message!r})"


@pytest.mark.parametrize("how", COPIES)
def test_it_works_with_a_message_alone(how: str) -> None:
    """It works like any other exception, without details of a breaker."""
    error = COPIES[how](CircuitOpenError("closed for today"))
    assert str(error) == "closed for today"
    assert repr(error) == "CircuitOpenError('closed for today')"
    assert error.breaker_name is None
    assert error.state is None
    assert error.retry_after is None
    assert error.reason is None


def test_it_works_without_anything() -> None:
    """`raise CircuitOpenError` is valid."""
    assert str(CircuitOpenError()) == ""
    assert CircuitOpenError().breaker_name is None


def test_it_is_a_plain_exception() -> None:
    """It is neither a connection error nor an error of a framework."""
    assert CircuitOpenError.__mro__[1] is Exception
