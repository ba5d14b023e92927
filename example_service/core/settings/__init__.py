"""The settings of the service. `load_settings` reads and validates them.

`Settings` and `load_settings` are imported on first use: `Settings` includes the settings of the
domains, which in turn import `model.py` of this package.
"""

from typing import TYPE_CHECKING

from example_service.core.settings.breakers import CircuitBreakerSettings
from example_service.core.settings.model import (
    AdminSettings,
    DatabaseSettings,
    HTTPSettings,
    LimitSettings,
    LogSettings,
    ShutdownSettings,
)

if TYPE_CHECKING:
    from example_service.core.settings.composition import Settings
    from example_service.core.settings.loading import load_settings
else:

    def __getattr__(name: str) -> object:
        if name not in ("Settings", "load_settings"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from example_service.core.settings import loading  # noqa: PLC0415

        return getattr(loading, name)


__all__ = [
    "AdminSettings",
    "CircuitBreakerSettings",
    "DatabaseSettings",
    "HTTPSettings",
    "LimitSettings",
    "LogSettings",
    "Settings",
    "ShutdownSettings",
    "load_settings",
]
