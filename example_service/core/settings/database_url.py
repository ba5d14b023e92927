"""Parse database URLs in the forms that providers of databases use.

The forms of libpq are supported: several hosts, sockets, TLS files. So are the options of other
drivers that have a counterpart here; for the others, the error says what to write instead. Each
message completes a sentence that begins with the name of the variable, and contains no values.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from pydantic import AfterValidator, SecretStr

DEFAULT_PORT: Final = 5432
SYSTEM_CERTIFICATES: Final = "system"
"""The value of `sslrootcert` that selects the system's certificate authorities."""

_LAST_PORT: Final = 65_535

_FORM: Final = re.compile(
    r"(?:(?P<login>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?:/(?P<database>[^/?#]*))?(?:\?(?P<options>[^#]*))?"
)
_HOST: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]+)?)?", re.ASCII
)
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TARGETS: Final = ("any", "read-write", "primary")
_FLAGS: Final = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}

_NOT_READ: Final = {
    "connect_timeout": "has the option connect_timeout; set DATABASE__CONNECT_TIMEOUT_SECONDS",
    "connection_limit": "has the option connection_limit; set DATABASE__POOL_SIZE",
    "pool_timeout": "has the option pool_timeout; set DATABASE__POOL_TIMEOUT_SECONDS",
    "statement_timeout": "has the option statement_timeout; set "
    "DATABASE__STATEMENT_TIMEOUT_SECONDS",
    "schema": "has the option schema; write options=-csearch_path%3DSCHEMA",
    "currentSchema": "has the option currentSchema; write options=-csearch_path%3DSCHEMA",
    "search_path": "has the option search_path; write options=-csearch_path%3DSCHEMA",
    "prepare_threshold": "has the option prepare_threshold; behind a pooler, write pgbouncer=true",
    "prepareThreshold": "has the option prepareThreshold; behind a pooler, write pgbouncer=true",
    "statement_cache_size": "has the option statement_cache_size; behind a pooler, write "
    "pgbouncer=true",
    "prepared_statement_cache_size": "has the option prepared_statement_cache_size; behind a "
    "pooler, write pgbouncer=true",
    "hostaddr": "has the option hostaddr; write the address instead of the host",
    "passfile": "has the option passfile; write the password into the URL",
    "sslpassword": "has the option sslpassword; use a key without a password",
    "socket_timeout": "has the option socket_timeout; set DATABASE__STATEMENT_TIMEOUT_SECONDS",
    "sslaccept": "has the option sslaccept; write sslmode=verify-full instead of strict, and "
    "sslmode=require instead of accept_invalid_certs",
    "timezone": "has the option timezone; write options=-ctimezone%3DUTC",
    "TimeZone": "has the option TimeZone; write options=-ctimezone%3DUTC",
    "unix_sock": "has the option unix_sock; write host= and the folder of the socket",
    "service": "has the option service; write its host, database and user into the URL",
}
"""Options of other drivers, with the message that says what to write instead."""

_HARMLESS: Final = (
    "client_encoding",
    "fallback_application_name",
    "gss",
    "keepalives",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "sslcompression",
    "sslsni",
    "supa",
    "tcp_user_timeout",
    "uselibpqcompat",
)
"""Prefixes of options that this driver does not have and that can safely be ignored."""

_POOLER_HOSTS: Final = re.compile(r"[\w-]+-pooler\..*neon\.tech|.*\.pooler\.supabase\.com")
"""The host names of the poolers of Neon and Supabase."""

_KNOWN: Final = ("ssl", "require_", "channel_", "requiressl", "replication", "min_", "max_")
"""Prefixes of other options of libpq, which errors may mention by name."""


@dataclass(frozen=True, slots=True)
class PostgreSQLAddress:
    """The address of a PostgreSQL database.

    Attributes:
        hosts: Host names, addresses or socket folders, each with its port, in the order in which
            they are tried.
        database: The name of the database.
        user: The user name; None for the user of the process.
        password: The password; None if the URL has none.
        ssl_mode: The mode as in libpq: disable, allow, prefer, require, verify-ca or verify-full.
        ssl_files: The paths of `sslrootcert`, `sslcert` and `sslkey`, by option.
        direct_tls: Whether TLS starts immediately, without negotiation.
        target: "any", or "read-write" or "primary" to accept only servers that allow writes.
        has_pooler: Whether a pooler such as PgBouncer is used, according to an option or the host.
        parameters: Run-time parameters of the session, such as `application_name`.
    """

    hosts: tuple[tuple[str, int], ...]
    database: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl_mode: str = "prefer"
    ssl_files: Mapping[str, str] = field(default_factory=dict)
    direct_tls: bool = False
    target: str = "any"
    has_pooler: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def trusts_system(self) -> bool:
        """Whether the server is verified with the system's certificate authorities."""
        root = self.ssl_files.get("sslrootcert")
        verifies = root is None and self.ssl_mode.startswith("verify")
        return verifies or root == SYSTEM_CERTIFICATES

    def __str__(self) -> str:
        """The address as an SQLAlchemy URL, without the password."""
        secret = ":***" if self.password is not None else ""
        user = f"{self.user}{secret}@" if self.user is not None else ""
        folders = ",".join(host for host, _ in self.hosts if host.startswith("/"))
        if folders:
            return f"postgresql+asyncpg://{user}/{self.database}?host={folders}"
        hosts = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.hosts)
        return f"postgresql+asyncpg://{user}{hosts}/{self.database}"


@dataclass(frozen=True, slots=True)
class SQLiteAddress:
    """The address of an SQLite database.

    Attributes:
        path: The path of the file, absolute or relative to the current directory.
    """

    path: str

    def __str__(self) -> str:
        """The address as an SQLAlchemy URL."""
        return f"sqlite+aiosqlite:///{self.path}"


def parse_database_url(text: str) -> PostgreSQLAddress | SQLiteAddress:
    """Parse a database URL. Surrounding white space is ignored.

    Raises:
        ValueError: The URL is not supported. The message says what to write instead.
    """
    url = text.strip()
    if url[:1] in {'"', "'"}:
        raise ValueError("should be written without quotation marks")
    scheme, separator, rest = url.partition("://")
    dialect, _, driver = scheme.lower().partition("+")
    if separator and dialect == "sqlite" and driver in {"", "aiosqlite"}:
        return _sqlite(rest)
    if not separator or dialect not in {"postgresql", "postgres"}:
        raise ValueError("should begin with postgresql:// or sqlite:///")
    return _postgresql(rest)


def _sqlite(rest: str) -> SQLiteAddress:
    if not re.fullmatch(r"/[^?#\x00-\x1f]+", rest):
        raise ValueError("should be sqlite:///, then the path of a file, without options")
    path = rest[1:]
    if ":memory:" in path:
        raise ValueError("should name a file: each connection would have its own memory")
    if path.startswith(("~", "$", "file:")) or path.endswith("/"):
        raise ValueError(
            "should be sqlite:///, then the path of a file as it is, without ~, variables or file:"
        )
    return SQLiteAddress(path)


def _postgresql(rest: str) -> PostgreSQLAddress:
    parts = _FORM.fullmatch(rest)
    if parts is None or not re.fullmatch(r"[!-~]+", rest):
        raise ValueError(
            "should be postgresql://USER:PASSWORD@HOST:PORT/DATABASE; in a password, write "
            "/ as %2F, ? as %3F, # as %23, @ as %40 and % as %25"
        )
    if not _is_text(unquote_to_bytes(rest)):
        raise ValueError("should have no control characters, and only UTF-8, behind each %")
    options = _Options(parts["options"] or "")
    login_user, _, login_password = (parts["login"] or "").partition(":")
    database = options.take("dbname") or unquote(parts["database"] or "")
    if not database:
        raise ValueError("should name a database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    files = {name: options.take(name) for name in ("sslrootcert", "sslcert", "sslkey")}
    hosts = _hosts(parts["hosts"], options)
    says_pooler = options.flag("pgbouncer")
    names_pooler = any(_POOLER_HOSTS.fullmatch(host.lower()) for host, _ in hosts)
    address = PostgreSQLAddress(
        hosts=hosts,
        database=database,
        user=options.take("user") or unquote(login_user) or None,
        password=options.take("password") or unquote(login_password) or None,
        ssl_mode=_ssl_mode(options, files["sslrootcert"]),
        ssl_files={name: path for name, path in files.items() if path},
        direct_tls=options.choice("sslnegotiation", ("postgres", "direct")) == "direct",
        target=options.choice("target_session_attrs", _TARGETS) or "any",
        has_pooler=names_pooler if says_pooler is None else says_pooler,
        parameters=options.parameters(),
    )
    options.refuse_rest()
    if address.direct_tls and address.ssl_mode in {"disable", "allow", "prefer"}:
        raise ValueError("has the option sslnegotiation=direct, which needs sslmode=require")
    return address


def _is_text(decoded: bytes) -> bool:
    """Whether decoded values can be sent to a server, which would end them at a NUL."""
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        return False
    return re.search(r"[\x00-\x1f\x7f]", text) is None


class _Options:
    """The options of a URL. Each method removes the options that it reads."""

    def __init__(self, query: str) -> None:
        self._values: dict[str, str] = {}
        for name, value in parse_qsl(_with_literal_plus(query), keep_blank_values=True):
            former = self._values.get(name)
            if former is not None and name != "host":
                raise ValueError("has the same option twice")
            # SQLAlchemy repeats the option `host` for several hosts.
            self._values[name] = value if former is None else f"{former},{value}"
            if name in _NOT_READ:
                raise ValueError(_NOT_READ[name])

    def take(self, name: str) -> str:
        """Remove and return the value of an option; empty if it is not set."""
        return self._values.pop(name, "")

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        value = self.take(name)
        if value and value not in known:
            raise ValueError(f"has a value of {name} that is not one of {', '.join(known)}")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.take(name).lower()
        if value and value not in _FLAGS:
            raise ValueError(f"has a value of {name} that is neither true nor false")
        return _FLAGS.get(value)

    def parameters(self) -> dict[str, str]:
        """Remove and return the run-time parameters of the session."""
        names = ("application_name", "options")
        return {name: value for name in names if (value := self.take(name))}

    def refuse_rest(self) -> None:
        unread = [name for name in self._values if not name.startswith(_HARMLESS)]
        if unread:
            # An unknown name may be part of a password, so it must not be shown.
            known = [name for name in unread if name.startswith(_KNOWN)]
            what = f"has the option {known[0]}, which" if known else "has an option that"
            raise ValueError(
                f"{what} this service does not read; it reads host, port, dbname, user, "
                "password, sslmode, sslrootcert, sslcert, sslkey, sslnegotiation, "
                "target_session_attrs, channel_binding, application_name, options and pgbouncer"
            )


def _with_literal_plus(query: str) -> str:
    """Escape each `+`, which stands for itself in libpq, except between two run-time `options`."""
    return re.sub(r"(?<![^&])(?!options=)[^&]*", lambda m: m[0].replace("+", "%2B"), query)


def _hosts(text: str, options: _Options) -> tuple[tuple[str, int], ...]:
    ports = options.take("port")
    written = (options.take("host") or text).split(",")
    default_ports = ports.split(",") if ports else [str(DEFAULT_PORT)]
    if len(default_ports) == 1:
        default_ports *= len(written)
    if len(default_ports) != len(written):
        raise ValueError("should have one port, or as many as there are hosts")
    return tuple(_host(*pair) for pair in zip(written, default_ports, strict=True))


def _host(text: str, default_port: str) -> tuple[str, int]:
    if not text:
        raise ValueError("should name a host: postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    folder = unquote(text)
    if folder.startswith("/"):
        return folder, _port(default_port)
    parts = _HOST.fullmatch(text) or _HOST.fullmatch(folder)
    if parts is None:
        raise ValueError(
            "should have HOST:PORT, with a name of letters, digits, hyphens and dots, or an IPv6 "
            "address in brackets: [::1]:5432"
        )
    return parts["v6"] or parts["name"], _port(parts["port"] or default_port)


def _port(text: str) -> int:
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 1 <= port <= _LAST_PORT:
        raise ValueError("should have a port from 1 to 65535")
    return port


def _ssl_mode(options: _Options, root: str) -> str:
    """The mode according to `sslmode`, `ssl` or `channel_binding`, in this order.

    As in libpq, the system's authorities are of no use without checking the name of the server.
    """
    mode = options.choice("sslmode", (*_SSL_MODES, "no-verify")).replace("no-verify", "require")
    plain = options.take("ssl").lower()
    if plain in _FLAGS:
        plain = "require" if _FLAGS[plain] else "disable"
    if plain and plain not in _SSL_MODES:
        raise ValueError("has a value of ssl that is neither true, false nor one of sslmode")
    # The driver does not support channel binding. The option is accepted all the same, because
    # providers add it to their URLs. sslmode=verify-full protects against the same attacks.
    binding = options.choice("channel_binding", ("disable", "prefer", "require"))
    given = mode or plain
    if root != SYSTEM_CERTIFICATES:
        return given or ("require" if binding == "require" else "prefer")
    if given not in ("", "verify-full"):
        raise ValueError("has the option sslrootcert=system, which needs sslmode=verify-full")
    return "verify-full"


def _check(value: SecretStr) -> SecretStr:
    url = value.get_secret_value().strip()
    address = parse_database_url(url)
    for option, path in getattr(address, "ssl_files", {}).items():
        if path != SYSTEM_CERTIFICATES and not os.access(path, os.R_OK):
            raise ValueError(f"has an option {option} with a file that cannot be read")
    return SecretStr(url)


DatabaseURL = Annotated[SecretStr, AfterValidator(_check)]
"""A database URL with its password: PostgreSQL or SQLite."""
