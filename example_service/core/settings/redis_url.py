"""Validate Redis and Valkey URLs. Messages do not contain the URL, which may have a password."""

import importlib.util
import re
from typing import Annotated, Final
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, SecretStr

OPTIONS: Final = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""The options that the query may have: the database for a socket, and files for TLS."""


def _check(value: SecretStr) -> SecretStr:
    # A secret from a file often ends with a line break.
    url = value.get_secret_value().strip()
    try:
        parts = urlsplit(url)
        # Reading `port` raises ValueError if it is invalid.
        remote = parts.hostname and parts.port != 0 and re.fullmatch(r"(/\d*)?", parts.path)
        local = not parts.hostname and parts.path.startswith("/")
        valid = {"redis": remote, "rediss": remote, "unix": local}.get(parts.scheme)
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        valid, options = False, {}
    if options.keys() - OPTIONS:
        raise ValueError(f"may only have the options {', '.join(sorted(OPTIONS))}")
    if not valid or "#" in url or not re.fullmatch(r"[!-~]+", url):
        raise ValueError(
            "should be redis://USER:PASSWORD@HOST:PORT/DATABASE, the same with rediss://, or "
            "unix:///PATH, percent-encoded"
        )
    if importlib.util.find_spec("redis") is None:
        raise ValueError("needs a package: pip install 'example-service[redis]'")
    return SecretStr(url)


RedisURL = Annotated[SecretStr, AfterValidator(_check)]
"""A Redis or Valkey URL with its password."""
