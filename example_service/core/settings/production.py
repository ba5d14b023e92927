"""Checks for settings that are valid but unsafe in production."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from example_service.core.digests import digest
from example_service.core.exceptions import SettingProblem
from example_service.core.settings.addresses import Network, is_loopback
from example_service.core.settings.database_url import (
    PostgreSQLAddress,
    SQLiteAddress,
    parse_database_url,
)
from example_service.core.settings.guessing import (
    PASSWORD_GUESSES_LOG10,
    TOKEN_GUESSES_LOG10,
    can_be_guessed,
    digests_of_words,
)
from example_service.core.settings.model import ServiceSettings

_PUBLIC_KEYS = (b"", b"a-key-of-the-shop-for-this-page", b"a-key-of-reports-for-this-page")
"""No key at all, and the keys in docs/callers.md."""

# The shortest prefixes of public networks that can plausibly contain only proxies, by IP version.
_SHORTEST_PREFIXES = {4: 10, 6: 19}
_PRIVATE_NETWORKS: Final[tuple[Network, ...]] = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "127.0.0.0/8", "fc00::/7", "fe80::/10"))
)
"""The private networks that are larger than that."""


def production_problems(settings: ServiceSettings) -> list[SettingProblem]:
    """Find unsafe settings. This also works in other environments, for a preview."""
    return [
        *_database_problems(settings),
        *_redis_problems(settings),
        *_http_problems(settings),
        *_token_problems(settings),
        *_api_problems(settings),
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
    if not address.password:
        if _needs_password(address):
            yield SettingProblem(name, "has no password, and a host on the network", example)
        return
    known = (address.user or "", address.database, *(host for host, _ in address.hosts))
    if can_be_guessed(address.password, PASSWORD_GUESSES_LOG10, known):
        yield SettingProblem(name, "has a password that can be guessed", example)


def _needs_password(address: PostgreSQLAddress) -> bool:
    """Whether the login needs a password, because no socket or certificate authenticates it."""
    if "sslcert" in address.ssl_files:
        return False
    return not all(host.startswith("/") or is_loopback(host) for host, _ in address.hosts)


def _redis_problems(settings: ServiceSettings) -> Iterator[SettingProblem]:
    if settings.redis.url is None:
        return
    name = "REDIS__URL"
    parts = urlsplit(settings.redis.url.get_secret_value())
    password = unquote(parts.password or "")
    example = f"{name}=rediss://:$PASSWORD@cache.internal:6379/0"
    if parts.scheme == "redis" and not password and not is_loopback(parts.hostname or ""):
        problem = "has neither TLS nor a password, so that anyone on the network may open circuits"
        yield SettingProblem(name, problem, example)
    elif password and can_be_guessed(password, PASSWORD_GUESSES_LOG10):
        yield SettingProblem(name, "has a password that can be guessed", example)


def _http_problems(settings: ServiceSettings) -> Iterator[SettingProblem]:
    if "*" in settings.http.allowed_hosts:
        yield SettingProblem(
            "HTTP__ALLOWED_HOSTS",
            'contains "*", so that requests for any host name are served',
            'HTTP__ALLOWED_HOSTS=["api.example.com"]',
        )
    if "*" in settings.http.cors_origins:
        yield SettingProblem(
            "HTTP__CORS_ORIGINS",
            'contains "*", so that every web page may call the service',
            'HTTP__CORS_ORIGINS=["https://app.example.com"]',
        )
    if _trusts_strangers(settings.http.trusted_proxies):
        yield SettingProblem(
            "HTTP__TRUSTED_PROXIES",
            "trusts too many addresses, so that clients can forge their own",
            'HTTP__TRUSTED_PROXIES=["10.0.0.0/8"]',
        )


def _trusts_strangers(proxies: Sequence[str]) -> bool:
    """Whether addresses, or several of them together, are more than proxies can have."""
    if "*" in proxies:
        return True
    networks = [ipaddress.ip_network(proxy) for proxy in proxies]
    by_version: list[list[Any]] = [[n for n in networks if n.version == v] for v in (4, 6)]
    merged = [whole for each in by_version for whole in ipaddress.collapse_addresses(each)]
    return any(
        network.prefixlen < _SHORTEST_PREFIXES[network.version]
        and not any(
            network.version == private.version and network.subnet_of(private)
            for private in _PRIVATE_NETWORKS
        )
        for network in merged
    )


def _token_problems(settings: ServiceSettings) -> Iterator[SettingProblem]:
    tokens = {"ADMIN__TOKEN": settings.admin.token, "METRICS__TOKEN": settings.metrics.token}
    for name, token in tokens.items():
        example = f"{name}=$(python -c 'import secrets; print(secrets.token_urlsafe())')"
        if token is None:
            if name == "ADMIN__TOKEN" and settings.dashboard.enabled:
                problem = "is not set, and DASHBOARD__ENABLED needs it in production"
                yield SettingProblem(name, problem, example)
        elif can_be_guessed(token.get_secret_value(), TOKEN_GUESSES_LOG10):
            yield SettingProblem(name, "can be guessed", example)


def _api_problems(settings: ServiceSettings) -> Iterator[SettingProblem]:
    if not settings.api.keys and not settings.api.open:
        yield SettingProblem(
            "API__KEYS",
            "is not set, so that anyone may call the API; API__OPEN=true would allow that",
            "API__KEYS=shop:$DIGEST, as `example-service key shop` prints it",
        )
    entries = [entry.split(":") for entry in settings.api.keys]
    public = {digest(key).hex() for key in _PUBLIC_KEYS}
    public |= digests_of_words(frozenset(given for _, given, *_ in entries))
    for name, given, *_ in entries:
        if given in public:
            yield SettingProblem(
                "API__KEYS",
                f"has a key for {name} that is empty, a common word or from the documentation",
                f"API__KEYS={name}:$DIGEST, as `example-service key {name}` prints it",
            )
