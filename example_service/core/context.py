"""What is known about the request being served, for code that is not handed the request.

The middleware sets both variables when a request enters and puts them back when it has left.
Log lines and outgoing calls read them. Outside a request both are `None`.
"""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request being served: the caller's own where it was sane, else one made here.

Only printable ASCII, safe to write into a header or a log line.
"""

traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The W3C Trace Context header to send with calls made for this request.

A whole header value, `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`: the trace of the caller
(or a new one) with this service's own span as the parent of whatever is called.
"""
