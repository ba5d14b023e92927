"""Read the settings, and name every variable that cannot be used."""

from pydantic import ValidationError

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.core.settings.composition import Settings
from example_service.core.settings.model import Source, given_values
from example_service.core.settings.production import production_problems
from example_service.core.settings.variables import unknown_variables, validation_problems


def load_settings() -> Settings:
    """Read the settings, and refuse what cannot be used where the service runs.

    Raises:
        SettingsError: If a variable is invalid or unknown, or production would be unsafe with it.
    """
    settings, problems = read_settings()
    if settings is not None and settings.environment == "production":
        problems += production_problems(settings)
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def read_settings() -> tuple[Settings | None, list[SettingProblem]]:
    """Read the settings without a judgement on production.

    Returns:
        The settings, None where a value is invalid; and what is wrong, which may be unknown
        variables beside valid settings.
    """
    try:
        given = variable_sources()
        problems = unknown_variables(Settings, given)
        return Settings(), problems
    except ValidationError as error:
        known = {problem.variable for problem in problems}
        invalid = validation_problems(Settings, error)
        return None, problems + [p for p in invalid if p.variable not in known]
    except SettingsError as error:
        return None, list(error.problems)


def variable_sources() -> dict[str, Source]:
    """Say where each variable that is set comes from, by its name in capitals.

    Variables of other programs are among them; what is not listed has its default.

    Raises:
        SettingsError: If a file cannot be read.
    """
    return {
        name.upper(): source
        for source, values in reversed(given_values(Settings).items())
        for name in values
    }
