"""What the database raises in our words.

DatabaseUnavailableError    it could not be asked, or did not answer; whether it acted is unknown
"""

from example_service.core.exceptions import ExampleServiceError


class DatabaseUnavailableError(ExampleServiceError):
    """The database cannot serve now; the text is what the database said, in one line.

    The error of the driver or of SQLAlchemy is the `__cause__`.

    If it is raised at the end of a transaction, it is unknown whether that was committed.
    """
