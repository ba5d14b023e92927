"""Security headers for browsers and caches."""

from collections.abc import Iterable
from typing import Final

Header = tuple[bytes, bytes]

_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_STORE: Final = (b"cache-control", b"no-store")
_FOR_DATA: Final = (
    b"content-security-policy",
    b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_FOR_PAGES: Final = (
    b"content-security-policy",
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
)


def protection_for(headers: Iterable[Header]) -> list[Header]:
    """The security headers that a response lacks.

    - `Content-Security-Policy`: data may load nothing, an HTML page may load resources, and neither
      may be framed.
    - `Cache-Control: no-store`.
    - `X-Content-Type-Options: nosniff`.

    Args:
        headers: The headers of a response, with lower-case names.
    """
    policy: Header | None = _FOR_DATA
    no_store: Header | None = _NO_STORE
    nosniff: Header | None = _NOSNIFF
    for name, value in headers:
        if name == b"content-type":
            if policy is not None and value.startswith(b"text/html"):
                policy = _FOR_PAGES
        elif name == b"content-security-policy":
            policy = None
        elif name == b"cache-control":
            no_store = None
        elif name == b"x-content-type-options":
            nosniff = None
    return [header for header in (policy, no_store, nosniff) if header is not None]
