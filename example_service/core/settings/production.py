"""What must not reach production: settings that are valid, and unsafe there."""

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from example_service.core.exceptions import SettingProblem
from example_service.core.settings.model import Settings

_PLACEHOLDERS = re.compile(
    r"change.?me|password|placeholder|example|postgres|your.?token", re.IGNORECASE
)
_FEWEST_DISTINCT_CHARACTERS = 8


def production_problems(settings: Settings) -> list[SettingProblem]:
    """Find what would be unsafe in production, wherever these settings are used now."""
    return [
        *_database_problems(settings),
        *_provider_problems(settings),
        *_sandbox_problems(settings),
        *_http_problems(settings),
        *_token_problems(settings),
    ]


def _database_problems(settings: Settings) -> Iterator[SettingProblem]:
    url = settings.database_url.get_secret_value()
    name = "DATABASE_URL"
    example = f"{name}=postgresql://payments:$PASSWORD@db.internal:5432/payments"
    if url.startswith("sqlite"):
        problem = "is not set to PostgreSQL; SQLite is for one machine in development"
        yield SettingProblem(name, problem, example)
        return
    parts = urlsplit(url)
    password = unquote(parts.password or "")
    if password and (password == unquote(parts.username or "") or _can_be_guessed(password)):
        yield SettingProblem(name, "has a password that can be guessed", example)
    longest = settings.payment_provider.timeout_seconds
    if settings.payments.claim_seconds < 2 * longest:
        # Another worker would take a payment up while the first still waits for its answer.
        name = "PAYMENTS__CLAIM_SECONDS"
        problem = "should be at least twice PAYMENT_PROVIDER__TIMEOUT_SECONDS"
        yield SettingProblem(name, problem, f"{name}={2 * longest:g}")


def _can_be_guessed(secret: str) -> bool:
    return len(set(secret)) < _FEWEST_DISTINCT_CHARACTERS or bool(_PLACEHOLDERS.search(secret))


def _provider_problems(settings: Settings) -> Iterator[SettingProblem]:
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


def _sandbox_problems(settings: Settings) -> Iterator[SettingProblem]:
    if settings.sandbox.control_url is not None:
        yield SettingProblem(
            "SANDBOX__CONTROL_URL", "is for development; unset it", "SANDBOX__CONTROL_URL="
        )


def _http_problems(settings: Settings) -> Iterator[SettingProblem]:
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


def _token_problems(settings: Settings) -> Iterator[SettingProblem]:
    if settings.admin.token is None:
        return
    if _can_be_guessed(settings.admin.token.get_secret_value()):
        yield SettingProblem(
            "ADMIN__TOKEN",
            "can be guessed",
            "ADMIN__TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())')",
        )
