"""`Settings`: one class with the groups that every service has, and those of the domains.

This is the only module below `main.py` that names a domain. A domain adds its groups here because
settings are read before anything else, and belong to one object whose types are known.
"""

from example_service.core.settings.model import ServiceSettings
from example_service.payments.settings import WithPayments
from example_service.sandbox.settings import WithSandbox


class Settings(WithSandbox, WithPayments, ServiceSettings):
    """All settings, read from the environment and `.env` where they are not passed in.

    Raises:
        pydantic.ValidationError: If a value is out of its range, or a group has an unknown field.
    """
