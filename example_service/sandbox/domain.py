"""The sandbox as a domain, enabled in development only."""

from typing import Final

from example_service.core.settings import Settings
from example_service.domain import Domain
from example_service.sandbox import routes, traffic
from example_service.sandbox.process import sandbox_if_needed


def _is_enabled(settings: Settings) -> bool:
    return settings.environment == "development"


SANDBOX: Final = Domain(
    name="sandbox",
    is_enabled=_is_enabled,
    routers=(routes.router, traffic.router),
    serving=sandbox_if_needed,
)
