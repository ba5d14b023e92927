"""Checks of the environment variables that configure outgoing HTTP: proxies and certificates.

httpx reads these variables when a client is created. An invalid one would stop the service at
startup with a traceback that does not name the variable, or would only fail at the first call.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final

import httpx

from example_service.core.exceptions import SettingProblem

_EXCEPTIONS: Final = "NO_PROXY"
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_EXAMPLES: Final = {
    _EXCEPTIONS: "NO_PROXY=localhost,.internal.example.com",
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
    rf"\*|(?:(?:https?|all)://)?(?:\*?\.)?{_HOST}{_PORT}|[0-9A-Fa-f:.]+",
    re.IGNORECASE,
)
_CERTIFICATE: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
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


def ignored_networks() -> dict[str, list[str]]:
    """The networks in NO_PROXY, by variable; empty if no proxy is set.

    Other programs read networks such as `10.0.0.0/8`, so the variable of a cluster often has some.
    httpx matches hosts only by name or address.
    """
    given = {name: value for name, value in os.environ.items() if value}
    if not any(name.upper() in _PROXIES for name in given):
        return {}
    networks = {
        name: list(filter(_is_network, _entries(value)))
        for name, value in given.items()
        if name.upper() == _EXCEPTIONS
    }
    return {name: found for name, found in networks.items() if found}


@contextmanager
def usable_exceptions() -> Iterator[None]:
    """Hide from httpx what it cannot read in NO_PROXY. Create clients inside this block.

    It fails to create a client if there is a network of IPv6, and does not match `*.internal`.
    """
    values = {name: os.environ[name] for name in os.environ if name.upper() == _EXCEPTIONS}
    for name, value in values.items():
        entries = [entry for entry in _entries(value) if not _is_network(entry)]
        os.environ[name] = ",".join(re.sub(r"^\*\.", ".", entry) for entry in entries)
    try:
        yield
    finally:
        os.environ.update(values)


def _entries(exceptions: str) -> list[str]:
    return [entry.strip(" ") for entry in exceptions.split(",")]


def _is_network(entry: str) -> bool:
    try:
        return "/" in entry and bool(ipaddress.ip_network(entry, strict=False))
    except ValueError:
        return False


def _problem_with(name: str) -> str | None:
    """What is wrong with a variable, while it is the only one that is set."""
    value, kind = os.environ[name], name.upper()
    bad_value = _BAD_EXCEPTION if kind == _EXCEPTIONS else _BAD_PROXY
    if kind == "SSL_CERT_DIR":
        return _directory_problem(value)
    try:
        if kind not in TRUST:
            _check_form(kind, value)
        with usable_exceptions():
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


def _directory_problem(value: str) -> str | None:
    """What is wrong with SSL_CERT_DIR, which may name several directories."""
    directories = [Path(each) for each in value.split(os.pathsep) if each and Path(each).is_dir()]
    if not directories:
        return "names a directory that does not exist"
    with suppress(OSError):
        files = chain.from_iterable(directory.iterdir() for directory in directories)
        if any(_CERTIFICATE.fullmatch(path.name) for path in files):
            return None
    return "names a directory without certificates under their hashes; run `openssl rehash`"


def _check_form(kind: str, value: str) -> None:
    """Raise a `ValueError` if a proxy, or an exception in NO_PROXY, cannot be what is meant."""
    pattern, entries = _PROXY, [value]
    if kind == _EXCEPTIONS:
        pattern, entries = _EXCEPTION, [e for e in _entries(value) if not _is_network(e)]
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
