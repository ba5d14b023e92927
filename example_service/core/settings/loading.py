"""Load the settings, and report all invalid variables together."""

from pydantic import ValidationError

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.core.settings.composition import Settings
from example_service.core.settings.model import Source, given_values
from example_service.core.settings.production import production_problems
from example_service.core.settings.variables import unknown_variables, validation_problems


def load_settings() -> Settings:
    """Load and validate the settings.

    Raises:
        SettingsError: A variable is invalid, unknown, or unsafe in production.
    """
    settings, problems = read_settings()
    if settings is not None and settings.environment == "production":
        problems += production_problems(settings)
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def read_settings() -> tuple[Settings | None, list[SettingProblem]]:
    """Load the settings without the checks for production.

    Returns:
        The settings, or None if a value is invalid; and the problems. Unknown variables are
        problems even if the settings are valid.
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
    """The source of each variable that is set, by its name in upper case.

    This includes the variables of other programs. Settings that are missing have their defaults.

    Raises:
        SettingsError: A file cannot be read.
    """
    return {
        name.upper(): source
        for source, values in reversed(given_values(Settings).items())
        for name in values
    }
