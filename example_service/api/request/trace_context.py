"""Makes the ids of a request continue its current span."""

from opentelemetry.trace import get_current_span
from starlette.types import ASGIApp, Receive, Scope, Send


class TraceContextMiddleware:
    """Sets the `traceparent` header of a request to the current span.

    Inner middleware then uses the trace id of the span in logs and responses, whether the caller or
    this service started the trace.

    Args:
        app: The application to wrap.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. One that is not traced is passed through."""
        span = get_current_span().get_span_context()
        if scope["type"] == "http" and span.is_valid:
            value = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
            others = [header for header in scope["headers"] if header[0] != b"traceparent"]
            scope = {**scope, "headers": [*others, (b"traceparent", value.encode())]}
        await self._app(scope, receive, send)
