"""Which settings production refuses, and which it accepts."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from example_service.core.settings.model import (
    AdminSettings,
    APISettings,
    DashboardSettings,
    HTTPSettings,
    MetricsSettings,
    RedisSettings,
    ServiceSettings,
)
from example_service.core.settings.production import production_problems

CALLERS_PAGE = Path(__file__).resolve().parents[4] / "docs" / "callers.md"
GOOD_TOKEN = "Zk3vq0YJ5b-8sWmR1tXeL9aHcU7dNfGi"
GOOD_DATABASE = "postgresql://shop:Wm8-tY3pQz51@db.internal/shop"


def settings_with(**changes: Any) -> ServiceSettings:
    """Settings that are fit for production, with these changes."""
    fit: dict[str, Any] = {
        "environment": "production",
        "database_url": SecretStr(GOOD_DATABASE),
        "http": HTTPSettings(allowed_hosts=["api.shop.com", "*.shop.com"]),
        "api": APISettings(keys=[f"shop:{'4b' * 32}"]),
    }
    return ServiceSettings(**(fit | changes))


def refused(settings: ServiceSettings) -> list[str]:
    """The names of the variables that production refuses."""
    return [problem.variable for problem in production_problems(settings)]


def test_fit_settings_pass() -> None:
    """Safe settings are accepted, including a token, subdomains and origins."""
    settings = settings_with(
        admin=AdminSettings(token=SecretStr(GOOD_TOKEN)),
        http=HTTPSettings(
            allowed_hosts=["*.shop.com"],
            cors_origins=["https://shop.com"],
            trusted_proxies=["10.0.0.0/8", "fc00::/7", "104.16.0.0/13", "2400:cb00::/32"],
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
        ("postgresql://shop:qwertyuiop12@db.internal/shop", "guessed"),
        ("postgresql://shop:Summer2026!@db.internal/shop", "guessed"),
    ],
)
def test_the_database_must_be_fit_for_production(url: str, reason: str) -> None:
    """SQLite and guessable passwords are refused, and the message does not show the password."""
    (problem,) = production_problems(settings_with(database_url=SecretStr(url)))

    assert problem.variable == "DATABASE_URL"
    assert reason in problem.problem
    assert url not in f"{problem.problem} {problem.example}"


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("postgresql://shop@db.internal/shop", True),
        ("postgresql://shop:@db.internal/shop", True),
        ("postgresql://shop@127.0.0.1,db.internal/shop", True),
        ("postgresql://shop@10.0.0.1/shop", True),
        ("postgresql://shop@169.254.1.1/shop", True),
        ("postgresql://shop@host.docker.internal/shop", True),
        ("postgresql://shop@localhost/shop", False),
        ("postgresql://shop@127.0.0.1/shop", False),
        ("postgresql://shop@%2Fvar%2Frun%2Fpostgresql/shop", False),
    ],
)
def test_a_database_on_the_network_needs_a_password(url: str, *, is_refused: bool) -> None:
    """A socket or a local server needs none: it may authenticate clients in another way."""
    expected = ["DATABASE_URL"] if is_refused else []
    assert refused(settings_with(database_url=SecretStr(url))) == expected


@pytest.mark.parametrize(
    "proxies",
    [
        "*",
        "0.0.0.0/0",
        "::/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "::ffff:0:0/96",
        "2000::/3",
        "8.0.0.0/8",
        "2a00::/16",
        ",".join(f"8.{number}.0.0/16" for number in range(256)),
    ],
)
def test_trusting_too_many_addresses_as_proxies_is_refused(proxies: str) -> None:
    """Otherwise clients could forge their addresses. Networks count together."""
    http = HTTPSettings.model_validate(
        {"allowed_hosts": ["api.shop.com"], "trusted_proxies": f"10.0.0.1,{proxies}"}
    )

    assert refused(settings_with(http=http)) == ["HTTP__TRUSTED_PROXIES"]


def test_wildcards_for_hosts_and_origins_are_refused() -> None:
    """The asterisk, which is the default in development, must be replaced."""
    http = HTTPSettings(allowed_hosts=["api.shop.com", "*"], cors_origins=["*"])

    assert refused(settings_with(http=http)) == ["HTTP__ALLOWED_HOSTS", "HTTP__CORS_ORIGINS"]


@pytest.mark.parametrize("token", ["0" * 32, "supersecretadmintoken", "please-Change-Me-now-1"])
def test_a_token_that_can_be_guessed_is_refused(token: str) -> None:
    """Repeated characters and placeholders are refused, and the message does not show them."""
    settings = settings_with(admin=AdminSettings(token=SecretStr(token)))

    (problem,) = production_problems(settings)

    assert problem.variable == "ADMIN__TOKEN"
    assert token not in f"{problem.problem} {problem.example}"


def test_a_metrics_token_that_can_be_guessed_is_refused() -> None:
    """The token is optional, but if it is set, it must not be guessable."""
    guessable = MetricsSettings(token=SecretStr("please-Change-Me-now-1"))
    good = MetricsSettings(token=SecretStr(GOOD_TOKEN))

    assert refused(settings_with(metrics=guessable)) == ["METRICS__TOKEN"]
    assert refused(settings_with(metrics=good)) == []


def test_an_api_that_anyone_may_call_is_refused() -> None:
    """An open API is accepted only if a setting says that it is intended."""
    assert refused(settings_with(api=APISettings())) == ["API__KEYS"]
    assert refused(settings_with(api=APISettings(open=True))) == []


def test_a_dashboard_needs_a_token() -> None:
    """Without a token, production would show the circuits to everyone."""
    problems = production_problems(settings_with(dashboard=DashboardSettings(enabled=True)))

    assert [problem.variable for problem in problems] == ["ADMIN__TOKEN"]
    assert "DASHBOARD__ENABLED" in problems[0].problem


@pytest.mark.parametrize("page", ["dashboard", "docs"])
@pytest.mark.parametrize(("given", "enabled"), [({}, False), ({"enabled": True}, True)])
def test_pages_are_off_in_production_by_default(
    page: str, given: dict[str, bool], enabled: bool
) -> None:
    """In other environments they are on."""
    production = ServiceSettings.model_validate({"environment": "production", page: given})
    development = ServiceSettings.model_validate({"environment": "development"})

    assert getattr(production, page).enabled is enabled
    assert getattr(development, page).enabled is True


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://cache.internal:6379/0", "neither TLS nor a password"),
        ("redis://10.0.0.5", "neither TLS nor a password"),
        ("redis://user@cache.internal", "neither TLS nor a password"),
        ("redis://:changeme@cache.internal", "guessed"),
        ("rediss://:password@cache.internal", "guessed"),
    ],
)
def test_a_store_that_anyone_may_write_is_refused(url: str, reason: str) -> None:
    """A client that can write to the store can open every circuit; no password is shown."""
    settings = settings_with(redis=RedisSettings(url=SecretStr(url)))

    (problem,) = production_problems(settings)

    assert problem.variable == "REDIS__URL"
    assert reason in problem.problem
    assert url not in f"{problem.problem} {problem.example}"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379",
        "redis://127.0.0.1",
        "redis://[::1]:6379/2",
        "unix:///run/valkey.sock",
        "rediss://cache.internal",
        "redis://:Wm8-tY3pQz51@cache.internal",
    ],
)
def test_a_store_of_this_machine_with_tls_or_a_password_passes(url: str) -> None:
    """A local address, TLS or a password keeps strangers out."""
    assert refused(settings_with(redis=RedisSettings(url=SecretStr(url)))) == []


WORDS = ("changeme", "password", "letmein", "government")


def test_the_keys_of_the_documentation_and_common_words_are_refused() -> None:
    """Anyone may have read or guessed them; the same is true of the digest of nothing."""
    [line] = re.findall("(?m)^export API__KEYS=(.+)$", CALLERS_PAGE.read_text("utf-8"))
    entries = [*line.split(","), f"till:{hashlib.sha256().hexdigest()}"]
    entries += [f"{word}:{hashlib.sha256(word.encode()).hexdigest()}" for word in WORDS]

    problems = production_problems(settings_with(api=APISettings(keys=entries)))

    assert [problem.variable for problem in problems] == ["API__KEYS"] * len(entries)
    for entry, problem in zip(entries, problems, strict=True):
        assert entry.partition(":")[0] in problem.problem
