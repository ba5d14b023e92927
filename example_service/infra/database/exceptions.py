"""Exceptions of the database.

DatabaseUnavailableError    the database is temporarily unavailable; a write may have taken effect
"""

from example_service.core.exceptions import ExampleServiceError


class DatabaseUnavailableError(ExampleServiceError):
    """The database is temporarily unavailable.

    The message is the first line of the database's error message. The error of the driver or of
    SQLAlchemy is the `__cause__`.

    If it is raised by the commit, it is unknown whether the transaction was committed.
    """
