"""Spans reach a collector, and an unreachable collector does not delay the service."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from example_service.core.exceptions import SettingsError
from example_service.infra.traces import recording
from example_service.infra.traces.recording import Recording


@pytest.fixture(autouse=True)
def _no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensure that no other part of this process records spans."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


class Collector(HTTPServer):
    """Keeps the messages that it receives."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Store a message."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.received.append((self.path, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running collector."""
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


async def record_a_call() -> None:
    """Record the span of one outgoing call, which fails because nothing listens there."""
    async with Recording().running(), httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1/recorded")


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, b"example-service"),
        ({"OTEL_SERVICE_NAME": "shop"}, b"shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=till"}, b"till"),
    ],
)
async def test_spans_are_exported_before_the_process_ends(
    variables: dict[str, str], name: bytes, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go to the collector named by the standard variables, under the service's name."""
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    for variable, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **variables}.items():
        monkeypatch.setenv(variable, value)

    await record_a_call()

    [(path, body)] = collector.received
    assert path == "/v1/traces"
    assert b"/recorded" in body
    assert name in body


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_BSP_MAX_QUEUE_SIZE", "-1"), ("OTEL_ATTRIBUTE_COUNT_LIMIT", "x")]
)
def test_a_value_that_opentelemetry_refuses_is_reported(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable, and `serve` exits with status 2."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=variable):
        Recording()


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [({}, 2.0), ({"OTEL_EXPORTER_OTLP_TIMEOUT": "7"}, None)],
)
def test_an_unreachable_collector_delays_the_end_by_two_seconds(
    variables: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has five seconds to clean up; the standard variable can change the delay."""
    timeouts = []

    def exporter(*, timeout: float | None) -> InMemorySpanExporter:
        timeouts.append(timeout)
        return InMemorySpanExporter()

    monkeypatch.setattr(recording, "OTLPSpanExporter", exporter)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    Recording().provider.shutdown()

    assert timeouts == [seconds]


async def test_an_existing_provider_is_used_and_left_open() -> None:
    """It belongs to an agent, which closes it."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    await record_a_call()
    with provider.get_tracer("a test").start_as_current_span("later"):
        pass

    assert [span.name for span in exporter.get_finished_spans()][-1] == "later"
    assert len(exporter.get_finished_spans()) > 1
    provider.shutdown()


@pytest.mark.parametrize(
    ("variables", "sent"),
    [({}, False), ({"OTEL_PROPAGATORS": "tracecontext,baggage"}, True)],
)
async def test_baggage_of_callers_is_not_passed_on_by_default(
    variables: dict[str, str], sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may identify the user."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    headers: dict[str, str] = {}

    async with Recording().running():
        propagate.inject(headers, baggage.set_baggage("user", "7"))

    assert ("baggage" in headers) is sent
