"""Context variables of the current request: its ids and its caller.

The middleware sets them for the duration of a request. Log lines and outgoing calls read them.
"""

from contextvars import ContextVar
from typing import Final, TypeAlias

RequestIdentity: TypeAlias = tuple[str, str, tuple[tuple[bytes, bytes], ...]]
"""The request id, the `traceparent` header, and both as response headers, in printable ASCII.

See `request_id` and `traceparent`. This is a plain tuple, because one is created for every request.
"""

TRACE_ID: Final = slice(3, 35)
"""The position of the trace id in a `traceparent` header."""

identity: ContextVar[RequestIdentity | None] = ContextVar("identity", default=None)
"""The ids of the current request; None outside a request."""


tracestate: ContextVar[str | None] = ContextVar("tracestate", default=None)
"""The `tracestate` header to send with outgoing calls of the current request, if there is one."""

baggage: ContextVar[str | None] = ContextVar("baggage", default=None)
"""The `baggage` header to send with outgoing calls of the current request, if there is one."""


caller: ContextVar[str | None] = ContextVar("caller", default=None)
"""The name of the authenticated caller of the current request; None if there is none."""


def request_id() -> str | None:
    """The id of the current request; None outside a request.

    This is the id that the client sent, if it is valid, or else a generated one. It is printable
    ASCII without quotes and backslashes, so it is safe in headers and log lines.
    """
    current = identity.get()
    return None if current is None else current[0]


def traceparent() -> str | None:
    """The W3C Trace Context header to send with outgoing calls; None outside a request.

    Its format is `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`. It contains the trace id of
    the caller, or a new one, and the span id of this request as the parent.
    """
    current = identity.get()
    return None if current is None else current[1]
