"""The parameters of a breaker, from the code that uses it and from the configuration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.failure_rate import FailureRate

SHORTEST_PROBE_TIMEOUT: Final = 60.0
"""Seconds that a probe may take by default, however short `recovery_timeout` is."""

_RULES: Final[dict[str, type[FailureRate | Backoff]]] = {
    "failure_rate": FailureRate,
    "backoff": Backoff,
}
_OTHER_WINDOW: Final = {"window_seconds": "window_calls", "window_calls": "window_seconds"}


class ConfiguredParametersError(ValueError):
    """Configured parameters contradict those in the code, although each is in its range.

    Attributes:
        breaker_name: The breaker's name.
        parameters: The configured parameters involved, such as `failure_rate.minimum_calls`.
        reason: Which parameters contradict each other, with their values.
    """

    def __init__(self, breaker_name: str, parameters: tuple[str, ...], reason: str) -> None:
        super().__init__(breaker_name, parameters, reason)
        self.breaker_name = breaker_name
        self.parameters = parameters
        self.reason = reason

    def __str__(self) -> str:
        """The breaker, the parameters and the reason."""
        names = " and ".join(self.parameters)
        return f"{names}, as configured for breaker {self.breaker_name!r}: {self.reason}"


def default_probe_timeout(recovery_timeout: float) -> float:
    """Seconds that a probe may take by default, so that a slow but healthy call can succeed."""
    return max(recovery_timeout, SHORTEST_PROBE_TIMEOUT)


def configuration_key(name: str) -> str:
    """The name of a breaker in the configuration.

    In lower case, with an underscore for every character other than letters and digits.
    """
    return "".join(character if character.isalnum() else "_" for character in name.lower())


def combined(
    name: str, defaults: Mapping[str, Any], configured: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters with which a breaker is created.

    Args:
        name: The breaker's name.
        defaults: The parameters in the code.
        configured: The parameters that take precedence. `failure_rate` and `backoff` may be
            mappings of some of their fields; the other fields then come from the code.

    Raises:
        TypeError: A field is of the wrong type, or there is no such field.
        ConfiguredParametersError: A field is out of range, or contradicts another.
    """
    parameters = {**defaults, **configured}
    for parameter, rule in _RULES.items():
        fields = configured.get(parameter)
        if isinstance(fields, Mapping):
            try:
                parameters[parameter] = _merged(rule, defaults.get(parameter), fields)
            except ValueError as error:
                paths = [f"{parameter}.{field}" for field in fields if field in str(error)]
                raise ConfiguredParametersError(name, tuple(paths), str(error)) from error
    return parameters


def _merged(
    rule: type[FailureRate | Backoff],
    given: FailureRate | Backoff | None,
    fields: Mapping[str, Any],
) -> FailureRate | Backoff:
    """The rule of the code with some fields replaced."""
    if given is None:
        return rule(**fields)
    # Setting one kind of window removes the other.
    replaced = {_OTHER_WINDOW[field]: None for field in fields if field in _OTHER_WINDOW}
    return replace(given, **{**replaced, **fields})
