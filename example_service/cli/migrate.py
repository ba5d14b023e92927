"""The command `example-service migrate`: bring the schema of the database up to date."""

import asyncio
from typing import TextIO

from example_service.core.exceptions import SettingsError
from example_service.core.settings import Settings
from example_service.core.settings.database_url import PostgreSQLAddress
from example_service.infra.database.engine import database_address
from example_service.infra.database.failures import DATABASE_ERRORS, describe_error
from example_service.infra.http.environment import TRUST, environment_problems
from example_service.migrations import MigrationError, in_words, upgrade


def migrate(settings: Settings, output: TextIO) -> int:
    """Apply all pending migrations.

    Args:
        settings: The settings with the database URL.
        output: The stream to write the result to.

    Returns:
        The exit status, 0.

    Raises:
        MigrationError: The migrations cannot be applied. The message says why.
        SettingsError: An environment variable prevents the verification of the server.
    """
    where = database_address(settings)
    trusts_system = isinstance(where, PostgreSQLAddress) and where.trusts_system
    if trusts_system and (problems := environment_problems(TRUST)):
        raise SettingsError(problems)
    try:
        before, after = asyncio.run(upgrade(settings))
    except DATABASE_ERRORS as error:
        raise MigrationError(
            f"The database {where} could not be migrated: {describe_error(error)}"
        ) from error
    if before == after:
        output.write(f"The schema of {where} is up to date ({in_words(after)}).\n")
    else:
        output.write(f"Migrated {where} from {in_words(before)} to {in_words(after)}.\n")
    return 0
