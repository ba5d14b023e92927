"""The bearer token of a request (RFC 6750)."""

from starlette.types import Scope


def bearer_token(scope: Scope) -> bytes | None:
    """Return the bearer token of a request. None unless there is exactly one."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, token = given[0].partition(b" ")
    return token.strip() or None if scheme.lower() == b"bearer" else None
