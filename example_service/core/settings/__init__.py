"""Every setting of the service: `load_settings` reads and checks them."""

from example_service.core.settings.loading import load_settings
from example_service.core.settings.model import (
    AdminSettings,
    CircuitBreakerSettings,
    DatabaseSettings,
    HTTPSettings,
    LimitSettings,
    LogSettings,
    PaymentProviderSettings,
    PaymentSettings,
    SandboxSettings,
    Settings,
    ShutdownSettings,
)

__all__ = [
    "AdminSettings",
    "CircuitBreakerSettings",
    "DatabaseSettings",
    "HTTPSettings",
    "LimitSettings",
    "LogSettings",
    "PaymentProviderSettings",
    "PaymentSettings",
    "SandboxSettings",
    "Settings",
    "ShutdownSettings",
    "load_settings",
]
