"""The class `Settings`, which combines the general settings with the domains' settings.

This is the only module besides `main.py` that refers to domains, because all settings are read
first and form one typed object.
"""

from example_service.core.settings.model import ServiceSettings
from example_service.payments.settings import WithPayments
from example_service.sandbox.settings import WithSandbox


class Settings(WithSandbox, WithPayments, ServiceSettings):
    """All settings. Those that are not passed as arguments come from the environment and `.env`.

    Raises:
        pydantic.ValidationError: A value is invalid, or a group has an unknown field.
    """
