"""What `example-service migrate` does: bring the schema of the database up to date."""

import asyncio
from typing import TextIO

from example_service.core.exceptions import SettingsError
from example_service.core.settings import Settings
from example_service.core.settings.database_url import PostgreSQLAddress
from example_service.infra.database.engine import database_address
from example_service.infra.database.failures import DATABASE_ERRORS, what_it_said
from example_service.infra.http.environment import TRUST, environment_problems
from example_service.migrations import MigrationError, in_words, upgrade


def migrate(settings: Settings, output: TextIO) -> int:
    """Apply the migrations that the database lacks.

    Args:
        settings: Where the database is.
        output: Where the result is written.

    Returns:
        The exit status, 0.

    Raises:
        MigrationError: If they cannot be applied; the text says why.
        SettingsError: If a variable of the environment keeps the server from being trusted.
    """
    where = database_address(settings)
    trusts_system = isinstance(where, PostgreSQLAddress) and where.trusts_system
    if trusts_system and (problems := environment_problems(TRUST)):
        raise SettingsError(problems)
    try:
        before, after = asyncio.run(upgrade(settings))
    except DATABASE_ERRORS as error:
        raise MigrationError(
            f"The database {where} could not be migrated: {what_it_said(error)}"
        ) from error
    if before == after:
        output.write(f"The schema of {where} is up to date ({in_words(after)}).\n")
    else:
        output.write(f"Migrated {where} from {in_words(before)} to {in_words(after)}.\n")
    return 0
