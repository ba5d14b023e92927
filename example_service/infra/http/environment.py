"""Checks of the environment variables that configure outgoing HTTP: proxies and certificates.

httpx reads these variables when a client is created. An invalid one would stop the service at
startup with a traceback that does not name the variable, or would only fail at the first call.
"""

import os
import re
import ssl
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from example_service.core.exceptions import SettingProblem

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_EXAMPLES: Final = {
    "NO_PROXY": "NO_PROXY=localhost,.internal.example.com",
    **{name: f"{name}=http://proxy.internal:3128" for name in _PROXIES},
    "SSL_CERT_FILE": "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
    "SSL_CERT_DIR": "SSL_CERT_DIR=/etc/ssl/certs",
    "SSLKEYLOGFILE": "SSLKEYLOGFILE=",
}
"""The variables, each with an example of a valid line."""

_BAD_PROXY: Final = "should be a URL that begins with http:// or https:// and names a host"
_BAD_EXCEPTION: Final = "has an entry that cannot be read, such as an IPv6 address in brackets"

# httpx creates a client for any other text as well, and then looks it up as a host name.
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|(?=[^.])[\w.-]{1,253})"
_PORT: Final = r"(?::0*(?P<port>[1-9][0-9]{0,4}))?"
_PROXY: Final = re.compile(
    rf"(?:(?:https?|socks5h?)://)?(?:[^@/?#\s]*@)?{_HOST}{_PORT}(?:[/?#]\S*)?", re.IGNORECASE
)
_EXCEPTION: Final = re.compile(
    rf"\*|(?:(?:https?|all)://)?(?:\*?\.)?{_HOST}{_PORT}|[0-9A-Fa-f:.]+(?:/[0-9]{{1,3}})?",
    re.IGNORECASE,
)
_LAST_PORT: Final = 65_535

TRUST: Final = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"})
"""The variables that apply to every TLS connection."""


def environment_problems(names: Collection[str] = _EXAMPLES) -> list[SettingProblem]:
    """Find the variables with which httpx cannot create a client.

    Args:
        names: The variables to check, in upper case; by default all that httpx reads.
    """
    given = [name for name in os.environ if name.upper() in _EXAMPLES and os.environ[name]]
    problems = []
    for name in (variable for variable in given if variable.upper() in names):
        with _without([other for other in given if other != name]):
            problem = _problem_with(name)
        if problem is not None:
            problems.append(SettingProblem(name, problem, _EXAMPLES[name.upper()]))
    return problems


def _problem_with(name: str) -> str | None:
    """What is wrong with a variable, while it is the only one that is set."""
    value, kind = os.environ[name], name.upper()
    bad_value = _BAD_EXCEPTION if kind == "NO_PROXY" else _BAD_PROXY
    if kind == "SSL_CERT_DIR" and not Path(value).is_dir():
        return "names a directory that does not exist"
    try:
        if kind not in TRUST:
            _check_form(kind, value)
        httpx.Client().close()
    except ssl.SSLError:
        return "names a file that has no certificates in PEM format"
    except OSError as error:
        return f"names a file that cannot be used: {error.strerror}"
    except ImportError:
        return "names a SOCKS proxy, which needs the package httpx[socks]"
    except (httpx.InvalidURL, ValueError):
        return bad_value
    return None


def _check_form(kind: str, value: str) -> None:
    """Raise a `ValueError` if a proxy, or an exception in NO_PROXY, cannot be what is meant."""
    pattern, entries = _PROXY, [value]
    if kind == "NO_PROXY":
        pattern, entries = _EXCEPTION, [entry.strip(" ") for entry in value.split(",")]
    for entry in filter(None, entries):
        match = pattern.fullmatch(entry)
        if match is None or int(match["port"] or 1) > _LAST_PORT:
            raise ValueError(kind)


@contextmanager
def _without(names: list[str]) -> Iterator[None]:
    values = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(values)
