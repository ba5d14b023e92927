"""What must not reach production: settings that are valid, and unsafe there."""

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from example_service.core.exceptions import SettingProblem

if TYPE_CHECKING:
    from example_service.core.settings import Settings

_PLACEHOLDERS = re.compile(r"change.?me|password|placeholder|example|your.?token", re.IGNORECASE)
_FEWEST_DISTINCT_CHARACTERS = 8


def production_problems(settings: "Settings") -> list[SettingProblem]:
    """Find what would be unsafe in production, wherever these settings are used now."""
    return [
        *_provider_problems(settings),
        *_sandbox_problems(settings),
        *_http_problems(settings),
        *_token_problems(settings),
    ]


def _provider_problems(settings: "Settings") -> Iterator[SettingProblem]:
    provider = settings.payment_provider
    if (reason := _unfit_provider(provider.base_url)) is not None:
        name = "PAYMENT_PROVIDER__BASE_URL"
        yield SettingProblem(name, reason, f"{name}=https://api.payment-provider.com")
    if provider.timeout_seconds >= settings.limits.request_timeout_seconds:
        # The request would be cut first: cancelled calls are no failures, and a provider that
        # hangs would never open its circuit.
        name = "PAYMENT_PROVIDER__TIMEOUT_SECONDS"
        problem = "should be less than LIMITS__REQUEST_TIMEOUT_SECONDS"
        yield SettingProblem(name, problem, f"{name}=2.0")


def _unfit_provider(base_url: str | None) -> str | None:
    if base_url is None:
        return "is not set, and production has no sandbox"
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if _is_this_machine(host):
        return "points to this machine, as a sandbox would"
    if "sandbox" in re.split(r"[.-]", host):
        return "points to a sandbox, where nothing is really charged"
    if parts.scheme != "https":
        return "should begin with https://"
    return None


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _sandbox_problems(settings: "Settings") -> Iterator[SettingProblem]:
    if settings.sandbox.control_url is not None:
        yield SettingProblem(
            "SANDBOX__CONTROL_URL", "is for development; unset it", "SANDBOX__CONTROL_URL="
        )


def _http_problems(settings: "Settings") -> Iterator[SettingProblem]:
    if "*" in settings.http.allowed_hosts:
        yield SettingProblem(
            "HTTP__ALLOWED_HOSTS",
            'holds "*", so that requests for any host name are served',
            'HTTP__ALLOWED_HOSTS=["api.example.com"]',
        )
    if "*" in settings.http.cors_origins:
        yield SettingProblem(
            "HTTP__CORS_ORIGINS",
            'holds "*", so that every web page may call the service',
            'HTTP__CORS_ORIGINS=["https://app.example.com"]',
        )


def _token_problems(settings: "Settings") -> Iterator[SettingProblem]:
    if settings.admin.token is None:
        return
    token = settings.admin.token.get_secret_value()
    if len(set(token)) < _FEWEST_DISTINCT_CHARACTERS or _PLACEHOLDERS.search(token):
        yield SettingProblem(
            "ADMIN__TOKEN",
            "can be guessed",
            "ADMIN__TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())')",
        )
