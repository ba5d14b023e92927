"""Creates breakers when the application starts, so that monitoring shows them before any call."""

from collections.abc import Callable, Iterable

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.infra.resilience import CircuitBreaker
from example_service.infra.resilience.parameters import ConfiguredParametersError, configuration_key


def create_breakers(creators: Iterable[Callable[[], CircuitBreaker]]) -> None:
    """Create breakers whose parameters come from the code and from the settings.

    Args:
        creators: Functions that create one breaker each.

    Raises:
        SettingsError: If a setting contradicts a parameter in the code. Each is valid by itself, so
            loading the settings cannot find this.
    """
    problems: list[SettingProblem] = []
    for create in creators:
        try:
            create()
        except ConfiguredParametersError as error:
            problems += _problems(error)
    if problems:
        raise SettingsError(problems)


def _problems(error: ConfiguredParametersError) -> Iterable[SettingProblem]:
    prefix = f"CIRCUIT_BREAKERS__{configuration_key(error.breaker_name).upper()}__"
    for parameter in error.parameters:
        name = prefix + parameter.upper().replace(".", "__")
        problem = f"contradicts the code, so change it or set both: {error.reason}"
        yield SettingProblem(name, problem)
