"""Checks of the environment variables that configure outgoing HTTP: proxies and certificates.

httpx reads these variables when a client is created. An invalid one would stop the service at
startup with a traceback that does not name the variable.
"""

import os
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

_UNREADABLE: Final = {
    "NO_PROXY": "has an entry that cannot be read, such as an IPv6 address in brackets"
}


TRUST: Final = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"})
"""The variables that apply to every TLS connection."""


def environment_problems(names: Collection[str] = _EXAMPLES) -> list[SettingProblem]:
    """Find the variables with which httpx cannot create a client.

    Args:
        names: The variables to check, in upper case; by default all that httpx reads.
    """
    given = [name for name in os.environ if name.upper() in _EXAMPLES and os.environ[name]]
    problems = []
    for name in (one for one in given if one.upper() in names):
        with _without([other for other in given if other != name]):
            problem = _problem_with(name)
        if problem is not None:
            problems.append(SettingProblem(name, problem, _EXAMPLES[name.upper()]))
    return problems


def _problem_with(name: str) -> str | None:
    """What is wrong with a variable, while it is the only one that is set."""
    if name == "SSL_CERT_DIR" and not Path(os.environ[name]).is_dir():
        return "names a directory that does not exist"
    try:
        httpx.Client().close()
    except ssl.SSLError:
        return "names a file that has no certificates in PEM format"
    except OSError as error:
        return f"names a file that cannot be used: {error.strerror}"
    except ImportError:
        return "names a SOCKS proxy, which needs the package httpx[socks]"
    except (httpx.InvalidURL, ValueError):
        return _UNREADABLE.get(name.upper(), "should be a URL that begins with http:// or https://")
    return None


@contextmanager
def _without(names: list[str]) -> Iterator[None]:
    values = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(values)
