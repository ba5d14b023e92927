"""The parameters of a breaker, from the code that uses it and from the configuration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.failure_rate import FailureRate

_RULES: Final[dict[str, type[FailureRate | Backoff]]] = {
    "failure_rate": FailureRate,
    "backoff": Backoff,
}
_OTHER_WINDOW: Final = {"window_seconds": "window_calls", "window_calls": "window_seconds"}


def combined(defaults: Mapping[str, Any], configured: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with which a breaker is created.

    Args:
        defaults: Those of the code.
        configured: Those that win over them. `failure_rate` and `backoff` may be mappings of some
            of their fields; the others are then as the code has them.

    Raises:
        TypeError: A field is of the wrong type, or there is no such field.
        ValueError: A field is out of range, or contradicts another.
    """
    parameters = {**defaults, **configured}
    for name, rule in _RULES.items():
        fields = configured.get(name)
        if not isinstance(fields, Mapping):
            continue
        given = defaults.get(name)
        if given is None:
            parameters[name] = rule(**fields)
            continue
        # A window takes the place of one of the other kind.
        replaced = {_OTHER_WINDOW[field]: None for field in fields if field in _OTHER_WINDOW}
        parameters[name] = replace(given, **{**replaced, **fields})
    return parameters
