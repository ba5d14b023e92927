"""The types of settings that need more validation than a range.

Each message completes a sentence that begins with the name of the variable, and contains no values.
"""

import ipaddress
import json
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from example_service.core.settings.addresses import ipv4_of_mapped, ipv4_of_mapped_network


def _read_items(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("should be a JSON array, or values separated by commas") from None
    return [item.strip() for item in re.split(r"[,\n]", value) if item.strip()]


# Programs disagree about other characters in a host, such as `%` and `\\`.
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f]*:[0-9a-f:.]+(%[\w.-]+)?", re.ASCII)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        # Reading `port` raises ValueError if it is invalid.
        has_address = parts.port != 0 and _HOST.fullmatch(parts.hostname or "")
        valid = parts.scheme in {"http", "https"} and has_address
    except ValueError:
        valid = None
    if not valid:
        raise ValueError("should be a URL that begins with https:// or http:// and names a host")
    return parts


def _check_url(value: str) -> str:
    parts = _split(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password, because URLs end up in logs")
    if parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", value):
        raise ValueError("should be a URL without query, fragment, spaces or non-ASCII characters")
    return value.rstrip("/")


def _check_origin(value: str) -> str:
    if value == "*":
        return value
    if _split(value).path or _check_url(value) != value:
        raise ValueError("should be origins without a path or a slash at the end")
    return plain_origin(value)


def plain_origin(origin: str) -> str:
    """Convert an origin to lower case, without the default port of its scheme, as browsers do."""
    return re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", origin.lower())


def _check_host_pattern(value: str) -> str:
    # Clients send names with other characters in their ASCII form, such as xn--mnchen-3ya.de.
    if value != "*" and not re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*", value, re.ASCII):
        raise ValueError(
            'should be host names in ASCII, without scheme and port, "*.example.com" or "*"'
        )
    return value.lower()


def _check_own_address(value: str) -> str:
    try:
        return str(ipv4_of_mapped(ipaddress.ip_address(value)))
    except ValueError:
        if not re.fullmatch(r"[\w.-]+", value, re.ASCII):
            raise ValueError(
                "should be an IP address or a host name, without scheme, port and brackets"
            ) from None
        return value


def _check_proxy(value: str) -> str:
    try:
        return value if value == "*" else str(ipv4_of_mapped_network(ipaddress.ip_network(value)))
    except ValueError:
        raise ValueError('should be IP addresses, networks such as 10.0.0.0/8, or "*"') from None


def _check_header_token(value: SecretStr) -> SecretStr:
    # A secret from a file often ends with a line break.
    token = value.get_secret_value().strip()
    if not re.fullmatch(r"[!-~]{16,}", token):
        raise ValueError("should be at least 16 visible ASCII characters, without spaces")
    return SecretStr(token)


CALLER_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
"""The pattern of the name of an API caller."""


def _check_api_keys(entries: list[str]) -> list[str]:
    checked = [entry.lower() for entry in entries]
    for entry in checked:
        if not re.fullmatch(rf"{CALLER_NAME}:[0-9a-f]{{64}}(:read)?", entry):
            raise ValueError(
                "should be NAME:DIGEST or NAME:DIGEST:read, as `example-service key NAME` prints it"
            )
    if len({entry.split(":")[1] for entry in checked}) < len(checked):
        raise ValueError("should have each digest once")
    return checked


PATH_PREFIX = r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+"
"""The pattern of a path prefix: segments of plain characters, none of them `..`."""


def _check_path_prefix(value: str) -> str:
    prefix = value.rstrip("/")
    if prefix and not re.fullmatch(PATH_PREFIX, prefix):
        raise ValueError("should be a path such as /shop, of letters, digits and . _ ~ -")
    return prefix


PathPrefix = Annotated[str, AfterValidator(_check_path_prefix)]
"""The path under which a proxy serves the service; empty, or without a trailing slash."""

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
"""Seconds, greater than 0 and at most a day."""

SecondsFromZero = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
"""Seconds, from 0 to a day."""

OwnAddress = Annotated[str, AfterValidator(_check_own_address)]
"""An address or a host name of this machine."""

HTTPURL = Annotated[str, AfterValidator(_check_url)]
"""A base URL without a trailing slash."""

HeaderToken = Annotated[SecretStr, AfterValidator(_check_header_token)]
"""A secret that is sent in a header."""

# Lists are JSON arrays, or values separated by commas or, in files, newlines.
_LIST = NoDecode, BeforeValidator(_read_items)

APIKeys = Annotated[list[str], *_LIST, AfterValidator(_check_api_keys)]
HostPatterns = Annotated[list[Annotated[str, AfterValidator(_check_host_pattern)]], *_LIST]
Origins = Annotated[list[Annotated[str, AfterValidator(_check_origin)]], *_LIST]
ProxyAddresses = Annotated[list[Annotated[str, AfterValidator(_check_proxy)]], *_LIST]
