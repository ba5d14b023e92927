"""The `baggage` header: values that a caller attaches to a whole trace (W3C Baggage)."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from example_service.core.context import baggage

MAX_BYTES: Final = 8_192
MAX_MEMBERS: Final = 64

_SPACE: Final = rb"[ \t]*"
_KEY: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE: Final = rb"[!#-+./0-9:<-\[\]-~-]*"
_PROPERTY: Final = rb"%b;%b%b(?:%b=%b%b)?" % (_SPACE, _SPACE, _KEY, _SPACE, _SPACE, _VALUE)
_MEMBER: Final = re.compile(
    rb"%b%b=%b%b(?:%b)*" % (_KEY, _SPACE, _SPACE, _VALUE, _PROPERTY),
)


class BaggageMiddleware:
    """Stores the baggage of a request in `core.context`, so that outgoing calls can pass it on.

    Args:
        app: The application to wrap.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            baggage.set(usable(value for name, value in scope["headers"] if name == b"baggage"))
        await self._app(scope, receive, send)


def usable(given: Iterable[bytes]) -> str | None:
    """Validate the baggage of a request.

    Args:
        given: The values of all `baggage` headers, which form one list.

    Returns:
        The list. None if it is empty, exceeds 64 members or 8,192 bytes, or is not valid W3C
        Baggage.
    """
    whole = b",".join(given)
    members = [member for part in whole.split(b",") if (member := part.strip(b" \t"))]
    if not members or len(whole) > MAX_BYTES or len(members) > MAX_MEMBERS:
        return None
    if not all(_MEMBER.fullmatch(member) for member in members):
        return None
    return b",".join(members).decode("ascii")
