"""The headers that protect a browser from what a response could make it do."""

from typing import Final

Header = tuple[bytes, bytes]

_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_FOR_DATA: Final = (
    b"content-security-policy",
    b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_FOR_PAGES: Final = (
    b"content-security-policy",
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
)


def protected(headers: list[Header]) -> list[Header]:
    """Add the headers that a response lacks: `nosniff`, and a policy on what its content may do.

    Data may do nothing. A page that sets its own `Content-Security-Policy` keeps it; any other may
    load what it needs, and nothing may frame it.

    Args:
        headers: The headers of a response, names in lower case. They are added to.

    Returns:
        The same list.
    """
    policy: Header | None = _FOR_DATA
    nosniff: Header | None = _NOSNIFF
    for name, value in headers:
        if name == b"content-type":
            if policy is not None and value.startswith(b"text/html"):
                policy = _FOR_PAGES
        elif name == b"content-security-policy":
            policy = None
        elif name == b"x-content-type-options":
            nosniff = None
    if policy is not None:
        headers.append(policy)
    if nosniff is not None:
        headers.append(nosniff)
    return headers
