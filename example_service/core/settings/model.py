"""The general settings of the service, with their units, ranges and defaults.

Each setting is an environment variable: `PORT`, or `GROUP__FIELD` for a field of a group
(`LIMITS__MAX_BODY_BYTES`). Variables take precedence over the file `.env` in the current directory,
which takes precedence over the defaults. An empty variable counts as not set. All defaults are safe
on a developer's machine.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from example_service.core.exceptions import SettingProblem
from example_service.core.settings.breakers import CircuitBreakerSettings
from example_service.core.settings.database_url import DatabaseURL
from example_service.core.settings.files import (
    SECRETS_VARIABLE,
    read_env_file,
    read_secret_files,
)
from example_service.core.settings.group import Group, PlainNumbers
from example_service.core.settings.redis_url import RedisURL
from example_service.core.settings.types import (
    APIKeys,
    HeaderToken,
    HostPatterns,
    Origins,
    OwnAddress,
    PathPrefix,
    ProxyAddresses,
    Seconds,
    SecondsFromZero,
)
from example_service.core.settings.variables import DELIMITER, group_names

Environment = Literal["development", "test", "production"]
Source = Literal["environment", ".env", "SECRETS_DIR"]
"""The source of a value."""

_PRODUCTION_DRAIN_SECONDS = 5.0
_EXAMPLE_DIGEST = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"


class LogSettings(Group):
    """The level and the format of log lines."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="Lines below this level are not written."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description='"console" for people, "json" for machines; "auto" is console on a terminal '
        "in development, otherwise json.",
    )
    access: bool = Field(default=True, description="Write one line for each request served.")

    @field_validator("level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class LimitSettings(Group):
    """Limits of requests and connections in each worker process."""

    max_body_bytes: int = Field(
        default=65_536, ge=1, description="Limit of a request body in bytes. Larger ones get 413."
    )
    max_connections: int = Field(
        default=4096,
        ge=16,
        description="Limit of connections in one worker process. Above it, idle connections are "
        "closed, the longest idle first. Lower if the process may open fewer files.",
    )
    receive_timeout_seconds: Seconds = Field(
        default=30.0,
        description="Time limit in seconds for the head of a request, and again for its body. "
        "Slower requests get 408.",
    )
    send_timeout_seconds: Seconds = Field(
        default=10.0,
        description="Seconds after which a client that does not read its response is disconnected.",
    )
    request_timeout_seconds: Seconds = Field(
        default=30.0, description="Time limit in seconds until the response to a request starts."
    )
    max_concurrent_requests: int = Field(
        default=1000,
        ge=1,
        description="Limit of concurrent requests in one worker process. Further ones get 503.",
    )
    monitoring_cache_seconds: SecondsFromZero = Field(
        default=1.0,
        description="Seconds for which responses of `/metrics` and `/health/circuit-breakers` are "
        "cached. Defaults to 0 in test.",
    )


class ShutdownSettings(Group):
    """The times of a graceful shutdown."""

    drain_seconds: SecondsFromZero = Field(
        default=0.0,
        description="Seconds for which the service accepts requests after a signal to stop, while "
        "readiness returns 503, so that load balancers stop sending requests. "
        "Defaults to 5 in production.",
    )
    grace_seconds: SecondsFromZero = Field(
        default=30.0,
        description="Seconds that requests in flight have to finish after the socket is closed.",
    )


class HTTPSettings(Group):
    """Hosts, origins, proxies and idle connections."""

    allowed_hosts: HostPatterns = Field(
        default=["*"],
        min_length=1,
        description='Accepted host names; "*.example.com" for subdomains, "*" for all names. '
        'Production refuses "*".',
        examples=[["api.example.com"]],
    )
    cors_origins: Origins = Field(
        default=[],
        description="Origins of web pages that may call the service (CORS); none by default. "
        'Production refuses "*".',
        examples=[["https://app.example.com"]],
    )
    trusted_proxies: ProxyAddresses = Field(
        default=[],
        description="Addresses or networks of proxies whose X-Forwarded-For, -Proto and -Prefix "
        'headers are trusted; "*" for all clients.',
        examples=[["10.0.0.0/8"]],
    )
    root_path: PathPrefix = Field(
        default="",
        description="Path prefix under which a proxy serves the service, and which the proxy "
        "removes from requests. X-Forwarded-Prefix of a trusted proxy takes "
        "precedence.",
        examples=["/shop"],
    )
    propagate_baggage: bool = Field(
        default=False,
        description="Whether to send the `baggage` header of a request (W3C Baggage) with "
        "outgoing calls. Enable it only if all called services may see its contents.",
    )
    keep_alive_seconds: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="Seconds after which an idle connection is closed. Proxies in front need a "
        "shorter time, otherwise they may send a request on a connection that is "
        "being closed.",
    )


class DatabaseSettings(Group):
    """Connections of each process to the database."""

    pool_size: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Limit of PostgreSQL connections in one worker process. SQLite always has one.",
    )
    pool_timeout_seconds: Seconds = Field(
        default=2.0, description="Time limit in seconds for waiting for a free connection."
    )
    pooler: bool = Field(
        default=False,
        description="Whether connections go through a pooler such as PgBouncer, in session or "
        "transaction mode. `pgbouncer=true` in the URL has the same effect.",
    )
    connect_timeout_seconds: Seconds = Field(
        default=2.0, description="Time limit in seconds for opening a connection."
    )
    statement_timeout_seconds: Seconds = Field(
        default=5.0,
        description="Time limit in seconds of one statement; with SQLite, of waiting for another "
        "writer.",
    )


class TraceSettings(Group):
    """OpenTelemetry traces."""

    enabled: bool = Field(
        default=False,
        description="Record requests and what they call as spans, and export them as the "
        "variables OTEL_… say. Needs the extra `otel`.",
    )

    @field_validator("enabled")
    @classmethod
    def _needs_the_extra(cls, value: bool) -> bool:
        if value and find_spec("opentelemetry.instrumentation") is None:
            raise ValueError("needs the extra otel: pip install 'example-service[otel]'")
        return value


class RedisSettings(Group):
    """The Redis or Valkey server through which several machines share their circuits."""

    url: RedisURL | None = Field(
        default=None,
        description="URL of Redis or Valkey: redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// "
        "for TLS, or unix:///PATH. Without it, only the workers of one machine share "
        "their circuits. Production refuses redis:// without a password, except on "
        "this machine.",
        examples=["rediss://:SECRET@cache.internal:6379/0"],
    )
    quorum: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Number of processes that must open a circuit within its RECOVERY_TIMEOUT "
        "before it opens for all.",
    )
    timeout_seconds: float = Field(
        default=0.4,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="Time limit in seconds for replies of Redis. Requests never wait for it.",
    )
    prefix: str = Field(
        default="example-service",
        min_length=1,
        max_length=100,
        description="Prefix of all keys. Services that share a server need different prefixes.",
    )


class AdminSettings(Group):
    """The admin endpoints."""

    token: HeaderToken | None = Field(
        default=None,
        description="Bearer token for /admin, at least 16 characters. Without it, /admin does not "
        'exist. Create one with: python -c "import secrets; '
        'print(secrets.token_urlsafe())"',
        examples=["$(python -c 'import secrets; print(secrets.token_urlsafe())')"],
    )


class APISettings(Group):
    """Access to the API below `/api`."""

    keys: APIKeys = Field(
        default=[],
        description="Keys of the callers: NAME:DIGEST each, or NAME:DIGEST:read for a caller that "
        "may only read. Create one with: example-service key NAME. Without keys, the "
        "API is open.",
        examples=[[f"shop:{_EXAMPLE_DIGEST}"]],
    )
    open: bool = Field(
        default=False,
        description="Whether production may start without keys, because a gateway authenticates "
        "the callers.",
    )

    @field_validator("open")
    @classmethod
    def _not_beside_keys(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("keys"):
            raise ValueError("should be false if API__KEYS is set")
        return value


class MetricsSettings(Group):
    """Access to the metrics."""

    token: HeaderToken | None = Field(
        default=None,
        description="Bearer token for /metrics, at least 16 characters. Without it, all clients "
        "may read the metrics.",
        examples=["$(python -c 'import secrets; print(secrets.token_urlsafe())')"],
    )


class DashboardSettings(Group):
    """The dashboard of the circuit breakers."""

    enabled: bool = Field(
        default=True,
        description="Serve /dashboard. Defaults to false in production, where the page requires "
        "ADMIN__TOKEN.",
    )


class DocsSettings(Group):
    """The API documentation pages."""

    enabled: bool = Field(
        default=True,
        description="Serve /docs, /redoc and /openapi.json. Defaults to false in production.",
    )


PageT = TypeVar("PageT", DashboardSettings, DocsSettings)


class ServiceSettings(PlainNumbers, BaseSettings):
    """The general settings. `Settings` adds the groups of the domains."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        env_nested_delimiter=DELIMITER,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    env_path: ClassVar[Path] = Path(".env")
    """The path of the file with variables, relative to the current directory."""

    environment: Environment = Field(
        default="development",
        description="development, test or production. Production refuses unsafe settings.",
    )
    host: OwnAddress = Field(
        default="127.0.0.1",
        description="Address to listen on; 0.0.0.0 for all addresses.",
    )
    port: int = Field(
        default=8000, ge=0, le=65_535, description="TCP port to listen on; 0 for a free one."
    )
    workers: int = Field(default=1, ge=1, le=256, description="Number of worker processes.")
    log: LogSettings = LogSettings()
    limits: LimitSettings = LimitSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    http: HTTPSettings = HTTPSettings()
    database_url: DatabaseURL = Field(
        default=SecretStr("sqlite:///var/database.sqlite3"),
        description="URL of the database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE with the "
        "options of libpq, or sqlite:/// and the path of a file. Production refuses "
        "SQLite.",
        examples=["postgresql://payments:SECRET@db.internal:5432/payments"],
    )
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    secrets_dir: str | None = Field(
        default=None,
        description="Folder with one file for each secret, named like its variable, such as "
        "ADMIN__TOKEN. Variables and `.env` take precedence over the files.",
    )
    api: APISettings = APISettings()
    admin: AdminSettings = AdminSettings()
    metrics: MetricsSettings = MetricsSettings()
    dashboard: DashboardSettings = DashboardSettings()
    docs: DocsSettings = DocsSettings()
    traces: TraceSettings = TraceSettings()
    circuit_breakers: dict[str, CircuitBreakerSettings] = Field(
        default={},
        description="Parameters of named breakers: CIRCUIT_BREAKERS__<NAME>__<PARAMETER>.",
    )

    @field_validator("limits")
    @classmethod
    def _nothing_kept_under_test(cls, value: LimitSettings, info: ValidationInfo) -> LimitSettings:
        if (
            info.data.get("environment") != "test"
            or "monitoring_cache_seconds" in value.model_fields_set
        ):
            return value
        return value.model_copy(update={"monitoring_cache_seconds": 0.0})

    @field_validator("shutdown")
    @classmethod
    def _drain_in_production(
        cls, value: ShutdownSettings, info: ValidationInfo
    ) -> ShutdownSettings:
        if (
            info.data.get("environment") != "production"
            or "drain_seconds" in value.model_fields_set
        ):
            return value
        return value.model_copy(update={"drain_seconds": _PRODUCTION_DRAIN_SECONDS})

    @field_validator("dashboard", "docs")
    @classmethod
    def _off_in_production(cls, value: PageT, info: ValidationInfo) -> PageT:
        if info.data.get("environment") != "production" or "enabled" in value.model_fields_set:
            return value
        return value.model_copy(update={"enabled": False})

    def domain_problems(self) -> Iterator[SettingProblem]:
        """Find settings of domains that are unsafe in production.

        A domain with such rules overrides this in its part of the settings.
        """
        yield from ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by the sources below
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments come first, then variables, `.env` and the files of `SECRETS_DIR`.

        Variables with the plain name of a group, such as `ADMIN` or `LOG`, are ignored. They
        usually belong to other programs, and no setting needs a JSON object in one.
        """
        groups = group_names(settings_cls)
        sources = [EnvSettingsSource(settings_cls) for _ in range(3)]
        for source, given in zip(sources, given_values(cls).values(), strict=True):
            source.env_vars = {name: given[name] for name in given if name not in groups}
        return init_settings, *sources


def given_values(settings_cls: type[ServiceSettings]) -> dict[Source, Mapping[str, str | None]]:
    """The values of each source by name in lower case. Earlier sources take precedence.

    Raises:
        SettingsError: A file cannot be read.
    """
    environment = EnvSettingsSource(settings_cls).env_vars
    from_file: Mapping[str, str | None] = read_env_file(settings_cls.env_path)
    folder = environment.get(SECRETS_VARIABLE.lower()) or from_file.get(SECRETS_VARIABLE.lower())
    groups = group_names(settings_cls)

    def is_setting(name: str) -> bool:
        first, delimiter, _ = name.partition(DELIMITER)
        return first in settings_cls.model_fields and bool(delimiter) == (first in groups)

    return {
        "environment": environment,
        ".env": from_file,
        "SECRETS_DIR": {**read_secret_files(folder, is_setting)},
    }
