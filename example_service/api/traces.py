"""What an application needs for traces, and what it needs without them: nothing."""

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from fastapi.telemetry import TelemetryConfig
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.middleware import Middleware

from example_service.core.settings import Settings
from example_service.infra.resilience import circuit_breaker_registry
from example_service.infra.resilience.events import CircuitListener

_OFF: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
_NOT_TRACED: Final = ("/dashboard", "/health/", "/metrics")


@dataclass(frozen=True, slots=True)
class Traces:
    """How the parts of an application take part in traces.

    Attributes:
        telemetry: What FastAPI records.
        middleware: Layers around all others.
        listeners: For every circuit breaker.
        running: Records calls and statements of an engine until the end of its block.
    """

    telemetry: TelemetryConfig
    middleware: Sequence[Middleware] = ()
    listeners: Sequence[CircuitListener] = ()
    running: Callable[[AsyncEngine], AbstractAsyncContextManager[None]] = lambda _: nullcontext()


def prepare_traces(settings: Settings) -> Traces:
    """Prepare what the settings ask for."""
    if not settings.traces.enabled:
        return Traces(_OFF)
    # Imported here, because it needs the extra `otel`, and takes a second.
    from example_service.api.request.trace_context import TraceContextMiddleware  # noqa: PLC0415
    from example_service.infra.traces.guarded_calls import SpanListener  # noqa: PLC0415
    from example_service.infra.traces.recording import Recording  # noqa: PLC0415

    recording = Recording()
    return Traces(
        {
            **_OFF,
            "tracing": True,
            "tracer_provider": recording.provider,
            # One span for a request, on which its circuits are; not five.
            "operation_spans": False,
            "exclude": _is_for_operators,
        },
        middleware=[Middleware(TraceContextMiddleware)],
        listeners=[SpanListener(circuit_breaker_registry)],
        running=recording.running,
    )


def _is_for_operators(scope: MutableMapping[str, Any]) -> bool:
    return str(scope["path"]).startswith(_NOT_TRACED)
