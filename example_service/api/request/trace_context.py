"""The ids of a request continue the span that traces it."""

from opentelemetry.trace import get_current_span
from starlette.types import ASGIApp, Receive, Scope, Send


class TraceContextMiddleware:
    """Puts the current span into the header `traceparent` of a request.

    What reads the header then, such as the ids of log lines and responses, has the same trace as
    the span, whether the caller or this service began it.

    Args:
        app: What serves the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; one that is not traced passes through untouched."""
        span = get_current_span().get_span_context()
        if scope["type"] == "http" and span.is_valid:
            value = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
            others = [header for header in scope["headers"] if header[0] != b"traceparent"]
            scope = {**scope, "headers": [*others, (b"traceparent", value.encode())]}
        await self._app(scope, receive, send)
