"""Sets of breaker parameters, and the circuits that they describe."""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Self

from example_service.infra.resilience import Backoff, CircuitBreaker, FailureRate
from example_service.infra.resilience.outcomes import DEFAULT_CLASSIFIER
from example_service.infra.resilience.parameters import default_probe_timeout
from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine

# `float` also reads `1_0`, ` 5 ` and the digits of other scripts.
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_PLAIN: Final = (
    "failure_threshold",
    "recovery_timeout",
    "success_threshold",
    "half_open_max_calls",
    "slow_call_duration",
    "probe_timeout",
)
_GROUPS: Final[Mapping[str, type[Any]]] = {"failure_rate": FailureRate, "backoff": Backoff}
NAMES: Final = (
    *_PLAIN,
    *(
        f"{group}.{field.name}"
        for group, kind in _GROUPS.items()
        for field in dataclasses.fields(kind)
    ),
)
_DEFAULTS: Final = {
    name: parameter.default
    for name, parameter in inspect.signature(CircuitBreaker.__init__).parameters.items()
}


class ParameterError(ValueError):
    """A set is invalid. The message names the parameter and says what it must be."""


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """A named set of breaker parameters.

    Attributes:
        name: The name of the set in the results.
        values: The values of parameters without the default value, by name. `NAMES` lists the
            names.
    """

    name: str
    values: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a set such as `strict: failure_threshold=3 recovery_timeout=10`.

        If the text does not start with a name, the whole text is the name.

        Raises:
            ParameterError: A parameter is unknown, or its value is out of range.
        """
        name, colon, rest = text.partition(":")
        values: dict[str, float] = {}
        for word in (rest if colon else text).replace(",", " ").split():
            parameter, equals, value = word.partition("=")
            if not equals:
                raise ParameterError(f"{word!r} is not name=value, such as failure_threshold=3")
            if parameter not in NAMES:
                raise ParameterError(f"there is no {parameter!r}; there are {', '.join(NAMES)}")
            if parameter in values:
                raise ParameterError(f"{parameter} is given twice; remove one")
            values[parameter] = _number(parameter, value)
        label = (name if colon else text).strip() or "defaults"
        if not label.isprintable():
            raise ParameterError(f"the name {label!r} has a control character; remove it")
        parsed = cls(label, values)
        parsed.circuit()
        return parsed

    @property
    def slow_seconds(self) -> float:
        """The duration from which a call counts as failing, in seconds; infinite if not set."""
        return self.values.get("slow_call_duration", inf)

    def with_values(self, name: str, values: Mapping[str, float]) -> Self:
        """A copy with another name and some values replaced."""
        return type(self)(name, {**self.values, **values})

    def in_words(self) -> str:
        """Format the values in the syntax that `parse` reads."""
        return " ".join(f"{name}={value:g}" for name, value in self.values.items()) or "defaults"

    def circuit(self) -> CircuitStateMachine:
        """Create a closed circuit with these parameters.

        Raises:
            ParameterError: A value is out of range.
        """
        given: dict[str, Any] = {name: self.values[name] for name in _PLAIN if name in self.values}
        try:
            for group, kind in _GROUPS.items():
                if fields := self._fields(group):
                    given[group] = kind(**fields)
            CircuitBreaker("replay", registry=None, **given)
        except (TypeError, ValueError) as error:
            raise ParameterError(str(error)) from None
        return _circuit(**{name: given.get(name, _DEFAULTS[name]) for name in (*_PLAIN, *_GROUPS)})

    def _fields(self, group: str) -> dict[str, Any]:
        # A fixed seed for the jitter makes replays reproducible.
        repeatable = {"seed": 0} if group == "backoff" else {}
        given = {
            name.removeprefix(f"{group}."): value
            for name, value in self.values.items()
            if name.startswith(f"{group}.")
        }
        return {**repeatable, **given} if given else {}


def _circuit(
    *,
    failure_threshold: int,
    recovery_timeout: float,
    success_threshold: int,
    half_open_max_calls: int,
    slow_call_duration: float | None,
    probe_timeout: float | None,
    failure_rate: FailureRate | None,
    backoff: Backoff,
) -> CircuitStateMachine:
    """Create the rules as `CircuitBreaker` does."""
    is_timed = slow_call_duration is not None
    return CircuitStateMachine(
        failure_threshold,
        recovery_timeout,
        success_threshold,
        half_open_max_calls,
        default_probe_timeout(recovery_timeout) if probe_timeout is None else probe_timeout,
        backoff,
        failure_rate,
        slow_call_duration,
        DEFAULT_CLASSIFIER.lock_free_steps(failure_rate, None, is_timed=is_timed),
    )


def _number(parameter: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ParameterError(f"{parameter} must be a number in plain digits, not {text!r}")
    return float(text) if "." in text else int(text)
