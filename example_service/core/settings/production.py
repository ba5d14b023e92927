"""What must not reach production: settings that are valid, and unsafe there."""

import re
from collections.abc import Iterator

from example_service.core.exceptions import SettingProblem
from example_service.core.settings.database_url import SQLiteAddress, parse_database_url
from example_service.core.settings.model import ServiceSettings

_PLACEHOLDERS = re.compile(
    r"change.?me|password|placeholder|example|postgres|your.?token", re.IGNORECASE
)
_FEWEST_DISTINCT_CHARACTERS = 8


def production_problems(settings: ServiceSettings) -> list[SettingProblem]:
    """Find what would be unsafe in production, wherever these settings are used now."""
    return [
        *_database_problems(settings),
        *_http_problems(settings),
        *_token_problems(settings),
        *settings.domain_problems(),
    ]


def _database_problems(settings: ServiceSettings) -> Iterator[SettingProblem]:
    name = "DATABASE_URL"
    example = f"{name}=postgresql://payments:$PASSWORD@db.internal:5432/payments"
    address = parse_database_url(settings.database_url.get_secret_value())
    if isinstance(address, SQLiteAddress):
        problem = "is not set to PostgreSQL; SQLite is for one machine in development"
        yield SettingProblem(name, problem, example)
        return
    password = address.password
    if password and (password == address.user or _can_be_guessed(password)):
        yield SettingProblem(name, "has a password that can be guessed", example)


def _can_be_guessed(secret: str) -> bool:
    return len(set(secret)) < _FEWEST_DISTINCT_CHARACTERS or bool(_PLACEHOLDERS.search(secret))


def _http_problems(settings: ServiceSettings) -> Iterator[SettingProblem]:
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


def _token_problems(settings: ServiceSettings) -> Iterator[SettingProblem]:
    if settings.admin.token is None:
        if settings.dashboard.enabled:
            yield SettingProblem(
                "ADMIN__TOKEN",
                "is not set, and DASHBOARD__ENABLED needs it in production",
                "ADMIN__TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())')",
            )
        return
    if _can_be_guessed(settings.admin.token.get_secret_value()):
        yield SettingProblem(
            "ADMIN__TOKEN",
            "can be guessed",
            "ADMIN__TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())')",
        )
