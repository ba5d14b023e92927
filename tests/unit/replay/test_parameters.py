"""Sets of parameters, as they are written on the command line."""

import pytest

from example_service.infra.resilience import CircuitState
from example_service.replay.parameters import NAMES, ParameterError, ParameterSet


def test_a_set_has_a_name_and_values() -> None:
    """The name stands before a colon; the values are separated by spaces or commas."""
    parsed = ParameterSet.parse("strict: failure_threshold=3, failure_rate.threshold=0.5")

    assert parsed == ParameterSet("strict", {"failure_threshold": 3, "failure_rate.threshold": 0.5})


@pytest.mark.parametrize(
    ("text", "name"),
    [("failure_threshold=3", "failure_threshold=3"), ("", "defaults"), (" mine : ", "mine")],
)
def test_a_set_without_a_name_is_named_by_its_text(text: str, name: str) -> None:
    """Its text distinguishes the set from the others."""
    assert ParameterSet.parse(text).name == name


def test_a_circuit_follows_the_values() -> None:
    """The circuit uses the given values, and the breaker's defaults for the rest."""
    circuit = ParameterSet.parse("failure_threshold=1 recovery_timeout=7").circuit()
    permit = circuit.try_acquire(0.0)
    assert permit is not None
    circuit.record_failure(permit, 1.0)

    assert circuit.phase.state is CircuitState.OPEN
    assert circuit.retry_after(2.0) == pytest.approx(6.0)
    assert circuit.success_threshold == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("failure_treshold=3", "there is no 'failure_treshold'; there are failure_threshold, "),
        ("failure_threshold=0", "failure_threshold must be"),
        ("failure_threshold=2.5", "failure_threshold must be"),
        ("failure_threshold=many", "failure_threshold must be a number in plain digits"),
        ("failure_threshold=1_0", "not '1_0'"),
        ("recovery_timeout=1e1", "not '1e1'"),
        ("failure_threshold", "'failure_threshold' is not name=value"),
        ("recovery_timeout=nan", "recovery_timeout must be"),
        ("recovery_timeout=1 recovery_timeout=2", "recovery_timeout is given twice"),
        ("failure_rate.threshold=2", "FailureRate.threshold must be"),
        ("failure_rate.window_calls=10 failure_rate.window_seconds=5", "not both"),
        ("backoff.multiplier=0.5", "Backoff.multiplier must be"),
    ],
)
def test_invalid_parameters_are_refused(text: str, problem: str) -> None:
    """The error names the parameter and its valid values."""
    with pytest.raises(ParameterError, match=problem):
        ParameterSet.parse(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_name_is_accepted(name: str) -> None:
    """Every parameter in the help text can be set."""
    ParameterSet.parse(f"{name}={100 if name == 'failure_rate.window_calls' else 1}")


def test_jitter_is_the_same_in_each_replay() -> None:
    """Equal sets wait equally long, although the jitter is random."""
    waits = []
    for _ in range(2):
        circuit = ParameterSet.parse("failure_threshold=1 backoff.jitter=1").circuit()
        permit = circuit.try_acquire(0.0)
        assert permit is not None
        circuit.record_failure(permit, 0.0)
        waits.append(circuit.retry_after(0.0))

    assert waits[0] == waits[1]
