"""Record spans and export them to a collector."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from example_service import __version__
from example_service.core.exceptions import SettingProblem, SettingsError

_NAME: Final = "example-service"

_TIMEOUT_SECONDS: Final = 2.0
"""The time limit of an export and its retries. The process has more time than this to shut down."""
_TIMEOUT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")


class Recording:
    """Records the spans of this process.

    An existing tracer provider, for example from a vendor's agent, is used unchanged. Otherwise
    spans are exported as configured by the `OTEL_…` variables, by default to a collector on this
    machine.

    Attributes:
        provider: The tracer provider, which `opentelemetry.trace.get_tracer` uses as well.

    Raises:
        SettingsError: OpenTelemetry refuses the value of a variable.
    """

    def __init__(self) -> None:
        provider = trace.get_tracer_provider()
        self._is_ours = not isinstance(provider, TracerProvider)
        if not isinstance(provider, TracerProvider):
            provider = _new_provider()
            trace.set_tracer_provider(provider)
        self.provider: TracerProvider = provider

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record outgoing calls until the end of the block."""
        httpx = HTTPXClientInstrumentor()
        propagator = get_global_textmap()
        if "OTEL_PROPAGATORS" not in os.environ:
            # The default also propagates the baggage of callers, which may identify a user.
            set_global_textmap(TraceContextTextMapPropagator())
        httpx.instrument(tracer_provider=self.provider)
        try:
            yield
        finally:
            httpx.uninstrument()
            set_global_textmap(propagator)
            if self._is_ours:
                await asyncio.to_thread(self.provider.shutdown)


def _new_provider() -> TracerProvider:
    try:
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_exporter()))
    except ValueError as error:
        # Some messages do not have the name of the variable. Those are about the batches.
        named = re.findall(r"OTEL_[A-Z_]+", str(error))
        names = named or sorted(name for name in os.environ if name.startswith("OTEL_BSP_"))
        problem = "has a value that OpenTelemetry refuses; it needs whole numbers above 0"
        raise SettingsError([SettingProblem(", ".join(names) or "OTEL_…", problem)]) from error
    return provider


def _exporter() -> OTLPSpanExporter:
    is_given = any(os.environ.get(variable) for variable in _TIMEOUT_VARIABLES)
    return OTLPSpanExporter(timeout=None if is_given else _TIMEOUT_SECONDS)


def _resource() -> Resource:
    own = {SERVICE_NAME: _NAME, SERVICE_VERSION: __version__}
    if os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        del own[SERVICE_NAME]
    return Resource.create(own)
