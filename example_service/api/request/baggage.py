"""`baggage`: what a caller wants to be known along the whole trace (W3C Baggage)."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from example_service.core.context import baggage

LONGEST_BYTES: Final = 8_192
MOST_MEMBERS: Final = 64

_SPACE: Final = rb"[ \t]*"
_KEY: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE: Final = rb"[!#-+./0-9:<-\[\]-~-]*"
_PROPERTY: Final = rb"%b;%b%b(?:%b=%b%b)?" % (_SPACE, _SPACE, _KEY, _SPACE, _SPACE, _VALUE)
_MEMBER: Final = re.compile(
    rb"%b%b=%b%b(?:%b)*" % (_KEY, _SPACE, _SPACE, _VALUE, _PROPERTY),
)


class BaggageMiddleware:
    """Has the baggage of a request sent along with the calls that are made for it.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            baggage.set(usable(value for name, value in scope["headers"] if name == b"baggage"))
        await self._app(scope, receive, send)


def usable(given: Iterable[bytes]) -> str | None:
    """The baggage of a request.

    Args:
        given: The values of `baggage`, which make up one list.

    Returns:
        The list; None if there is none, if it is longer than 64 members or 8,192 bytes, or if any
        part of it is not as W3C Baggage has it.
    """
    whole = b",".join(given)
    members = [member for one in whole.split(b",") if (member := one.strip(b" \t"))]
    if not members or len(whole) > LONGEST_BYTES or len(members) > MOST_MEMBERS:
        return None
    if not all(_MEMBER.fullmatch(member) for member in members):
        return None
    return b",".join(members).decode("ascii")
