"""Whose request is being served, and its ids, for code that does not receive the request.

The middleware sets it for the time of a request. Log lines and outgoing calls read it.
"""

from contextvars import ContextVar
from typing import Final, TypeAlias

RequestIdentity: TypeAlias = tuple[str, str, tuple[tuple[bytes, bytes], ...]]
"""The ids of one request, in printable ASCII: its own, the trace header, and both as headers.

A plain tuple, because one is created for every request. `request_id` and `traceparent` describe the
first two; the third is added to the headers of the response.
"""

TRACE_ID: Final = slice(3, 35)
"""Where the id of the trace is in a `traceparent` header."""

identity: ContextVar[RequestIdentity | None] = ContextVar("identity", default=None)
"""The identity of the request being served; None outside a request."""


tracestate: ContextVar[str | None] = ContextVar("tracestate", default=None)
"""The header of that name to send with calls made for the request being served, if there is one."""

baggage: ContextVar[str | None] = ContextVar("baggage", default=None)
"""The header of that name to send with calls made for the request being served, if there is one."""


caller: ContextVar[str | None] = ContextVar("caller", default=None)
"""Name of the caller whose request is served; None where callers have no names, as without keys."""


def request_id() -> str | None:
    """The id of the request being served: the caller's own where it was sane, else one made here.

    Only printable ASCII without quotes and backslashes, safe to write into a header or a log line.
    None outside a request.
    """
    current = identity.get()
    return None if current is None else current[0]


def traceparent() -> str | None:
    """The W3C Trace Context header to send with calls made for this request.

    A whole header value, `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`: the trace of the
    caller (or a new one) with this service's own span as the parent of whatever is called. None
    outside a request.
    """
    current = identity.get()
    return None if current is None else current[1]
