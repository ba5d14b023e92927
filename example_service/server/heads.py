"""Checks of the target and the headers of a request, in addition to the parser's checks."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, TypeAlias

from example_service.server import refusals
from example_service.server.refusals import Refusal

Headers: TypeAlias = list[tuple[bytes, bytes]]

_OFFER: Final = frozenset((b"upgrade", b"http2-settings"))
_SCHEMES: Final = frozenset((b"http", b"https"))
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?", re.ASCII
)
# A host name has at most 253 characters; the rest allows for a port.
_MAX_HOST_LENGTH: Final = 262
_END_OF_AUTHORITY: Final = re.compile(rb"[/?#]|$")


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    return len(value) <= _MAX_HOST_LENGTH and _HOST.fullmatch(value) is not None


def fault_of_headers(headers: Headers, version: str) -> Refusal | None:
    """Check the headers.

    Args:
        headers: The headers, with names in lower case and values without white space around them.
        version: The HTTP version: `1.0` or `1.1`.

    Returns:
        Why the request is refused, or None.
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                return refusals.NOT_ONE_HOST
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            return refusals.UNKNOWN_CODING
    if hosts != 1 and (hosts or version == "1.1"):
        return refusals.NOT_ONE_HOST
    return None


def origin_form(target: bytes, headers: Headers) -> bytes | Refusal:
    """Convert a target in absolute form, such as `http://example.com/path`, to a path.

    The authority of the target replaces the `Host` header (RFC 9112, section 3.2.2).

    Args:
        target: The target of the request.
        headers: The headers. The list is modified in place.

    Returns:
        The path with the query, or why the request is refused.
    """
    scheme, separator, rest = target.partition(b"://")
    if not separator:
        return target
    end = _END_OF_AUTHORITY.search(rest)
    authority = rest[: end.start()] if end else rest
    if scheme.lower() not in _SCHEMES or not authority or not _is_host(authority):
        return refusals.FOREIGN_TARGET
    headers[:] = [(b"host", authority), *(header for header in headers if header[0] != b"host")]
    path = rest[len(authority) :]
    return path if path.startswith(b"/") else b"/" + path


def unparsed_headers(head: bytes) -> Headers:
    """Return the headers of a head that the parser refused before it reached them."""
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    fields = [line.partition(b":") for line in lines]
    return [(name.lower(), value.strip(b" \t")) for name, _, value in fields]


def without_offer(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """Remove the headers that request a protocol upgrade, which a server may ignore."""
    for name, value in headers:
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            kept = [option for option in options if option.lower() not in _OFFER]
            yield name, b", ".join(kept)
        elif name not in _OFFER:
            yield name, value
