"""The tracing of an application. Without `TRACES__ENABLED`, it adds nothing."""

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
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
_NOT_TRACED: Final = ("/dashboard/", "/health/", "/metrics/", "/sandbox/")


@dataclass(frozen=True, slots=True)
class Traces:
    """The parts of an application that record spans.

    Attributes:
        telemetry: The telemetry settings of FastAPI.
        middleware: Outermost middleware.
        listeners: Listeners to add to every circuit breaker.
        running: A context manager that records outgoing HTTP calls.
        statements: A context manager that records the statements of an engine.
    """

    telemetry: TelemetryConfig
    middleware: Sequence[Middleware] = ()
    listeners: Sequence[CircuitListener] = ()
    running: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    statements: Callable[[AsyncEngine], AbstractContextManager[None]] = lambda _: nullcontext()


def prepare_traces(settings: Settings) -> Traces:
    """Create the parts that record spans, or disabled ones if traces are disabled."""
    if not settings.traces.enabled:
        return Traces(_OFF)
    # Imported here, because these modules need the extra `otel` and take a second to import.
    from example_service.api.request.trace_context import TraceContextMiddleware  # noqa: PLC0415
    from example_service.infra.traces.guarded_calls import SpanListener  # noqa: PLC0415
    from example_service.infra.traces.recording import Recording  # noqa: PLC0415
    from example_service.infra.traces.statements import recorded_statements  # noqa: PLC0415

    recording = Recording()
    return Traces(
        {
            **_OFF,
            "tracing": True,
            "tracer_provider": recording.provider,
            # One span for each request, which the circuits annotate, instead of five.
            "operation_spans": False,
            "exclude": _is_for_operators,
        },
        middleware=[Middleware(TraceContextMiddleware)],
        listeners=[SpanListener(circuit_breaker_registry)],
        running=recording.running,
        statements=partial(recorded_statements, recording.provider),
    )


def _is_for_operators(scope: MutableMapping[str, Any]) -> bool:
    return f"{scope['path']}/".startswith(_NOT_TRACED)
