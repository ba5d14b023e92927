"""What production refuses, and what it lets pass."""

from typing import Any

import pytest
from pydantic import SecretStr

from example_service.core.settings.model import (
    AdminSettings,
    DashboardSettings,
    HTTPSettings,
    ServiceSettings,
)
from example_service.core.settings.production import production_problems

GOOD_TOKEN = "Zk3vq0YJ5b-8sWmR1tXeL9aHcU7dNfGi"
GOOD_DATABASE = "postgresql://shop:Wm8-tY3pQz51@db.internal/shop"


def settings_with(**changes: Any) -> ServiceSettings:
    """Settings that are fit for production, but for the changes."""
    fit: dict[str, Any] = {
        "environment": "production",
        "database_url": SecretStr(GOOD_DATABASE),
        "http": HTTPSettings(allowed_hosts=["api.shop.com", "*.shop.com"]),
    }
    return ServiceSettings(**(fit | changes))


def refused(settings: ServiceSettings) -> list[str]:
    """The variables that are refused."""
    return [problem.variable for problem in production_problems(settings)]


def test_fit_settings_pass() -> None:
    """Nothing is refused where nothing is unsafe: a token, subdomains and origins included."""
    settings = settings_with(
        admin=AdminSettings(token=SecretStr(GOOD_TOKEN)),
        http=HTTPSettings(
            allowed_hosts=["*.shop.com"],
            cors_origins=["https://shop.com"],
            trusted_proxies=["*"],
        ),
    )

    assert refused(settings) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///var/database.sqlite3", "PostgreSQL"),
        ("postgresql://shop:shop@db.internal/shop", "guessed"),
        ("postgresql://sh%40p:sh%40p@db.internal/shop", "guessed"),
        ("postgresql://shop:postgres@db.internal/shop", "guessed"),
        ("postgresql://shop:change-me-now@db.internal/shop", "guessed"),
        ("postgresql://shop:1111111111@db.internal/shop", "guessed"),
    ],
)
def test_the_database_must_be_fit_for_production(url: str, reason: str) -> None:
    """A file of one machine and a password that can be guessed are refused, without showing it."""
    (problem,) = production_problems(settings_with(database_url=SecretStr(url)))

    assert problem.variable == "DATABASE_URL"
    assert reason in problem.problem
    assert url not in f"{problem.problem} {problem.example}"


def test_a_database_without_a_password_passes() -> None:
    """Sockets, certificates and trusted networks need none."""
    assert refused(settings_with(database_url=SecretStr("postgresql://shop@db/shop"))) == []


def test_any_host_and_any_origin_are_refused() -> None:
    """The asterisk that development has by default must be replaced."""
    http = HTTPSettings(allowed_hosts=["api.shop.com", "*"], cors_origins=["*"])

    assert refused(settings_with(http=http)) == ["HTTP__ALLOWED_HOSTS", "HTTP__CORS_ORIGINS"]


@pytest.mark.parametrize("token", ["0" * 32, "abcabcabcabcabcabc", "please-Change-Me-now-1"])
def test_a_token_that_can_be_guessed_is_refused(token: str) -> None:
    """A token is not repeated characters and not a placeholder; the refusal does not show it."""
    settings = settings_with(admin=AdminSettings(token=SecretStr(token)))

    (problem,) = production_problems(settings)

    assert problem.variable == "ADMIN__TOKEN"
    assert token not in f"{problem.problem} {problem.example}"


def test_a_dashboard_needs_a_token() -> None:
    """In production it would show the circuits to everyone, so it is refused without one."""
    problems = production_problems(settings_with(dashboard=DashboardSettings(enabled=True)))

    assert [problem.variable for problem in problems] == ["ADMIN__TOKEN"]
    assert "DASHBOARD__ENABLED" in problems[0].problem


@pytest.mark.parametrize("page", ["dashboard", "docs"])
@pytest.mark.parametrize(("given", "enabled"), [({}, False), ({"enabled": True}, True)])
def test_pages_are_off_in_production_unless_given(
    page: str, given: dict[str, bool], enabled: bool
) -> None:
    """Elsewhere they are on."""
    production = ServiceSettings.model_validate({"environment": "production", page: given})
    development = ServiceSettings.model_validate({"environment": "development"})

    assert getattr(production, page).enabled is enabled
    assert getattr(development, page).enabled is True
