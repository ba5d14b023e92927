"""Requests, outgoing calls, statements and circuit decisions appear in traces."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from example_service.core.settings import Settings
from example_service.core.settings.model import TraceSettings
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.infra.traces.guarded_calls import SpanListener
from example_service.main import create_app
from example_service.migrations import upgrade
from example_service.payments.settings import PaymentProviderSettings
from tests.payments.unit.fakes import ORDER

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Collects the spans of a test, with a provider set before the application."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose payment provider refuses every connection."""
    given = Settings(
        environment="test",
        payment_provider=PaymentProviderSettings(base_url="http://127.0.0.1:9"),
        **{"traces": TraceSettings(enabled=True), **settings},
    )
    await upgrade(given)
    app = create_app(given)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service.test"
        ) as client,
    ):
        yield client


async def pay(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    """Order a payment."""
    headers["Idempotency-Key"] = "k"
    return await client.post("/api/v1/payments", headers=headers, json=ORDER.model_dump())


def of_kind(exporter: InMemorySpanExporter, kind: trace.SpanKind) -> list[ReadableSpan]:
    """The spans of a kind, in the order in which they ended."""
    return [span for span in exporter.get_finished_spans() if span.kind is kind]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span that concern circuits."""
    return {
        name.removeprefix("circuit_breaker."): value
        for name, value in (span.attributes or {}).items()
        if name.startswith("circuit_breaker.")
    }


def trace_ids(spans: list[ReadableSpan]) -> set[str]:
    """The trace IDs of spans."""
    return {f"{span.context.trace_id:032x}" for span in spans if span.context is not None}


async def test_a_request_its_calls_and_its_statements_are_one_trace(
    exporter: InMemorySpanExporter,
) -> None:
    """It is the caller's trace, and statements show no parameters."""
    async with serving() as client:
        exporter.clear()
        response = await pay(client, traceparent=CALLER)

    assert response.status_code == 202
    [request] = of_kind(exporter, trace.SpanKind.SERVER)
    names = {span.name for span in of_kind(exporter, trace.SpanKind.CLIENT)}
    assert request.name == "POST /api/v1/payments"
    assert "POST" in names
    assert any(name.startswith("INSERT") for name in names)
    assert trace_ids(list(exporter.get_finished_spans())) == {CALLER[3:35]}
    assert response.headers["traceparent"][3:35] == CALLER[3:35]
    assert ORDER.customer_id not in "".join(
        span.to_json() for span in exporter.get_finished_spans()
    )


async def test_log_lines_have_the_id_of_a_trace_that_begins_here(
    exporter: InMemorySpanExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trace that starts here can be found from its log lines, and they from it."""
    async with serving() as client:
        exporter.clear()
        response = await pay(client)

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    logged = {line["trace_id"] for line in lines if "trace_id" in line}
    [request] = of_kind(exporter, trace.SpanKind.SERVER)
    assert logged == trace_ids([request]) == {response.headers["traceparent"][3:35]}


async def test_outcomes_of_guarded_calls_are_on_the_span_of_the_request(
    exporter: InMemorySpanExporter,
) -> None:
    """Attributes are per circuit, so that none overwrites another."""
    async with serving() as client:
        exporter.clear()
        await pay(client)

    [request] = of_kind(exporter, trace.SpanKind.SERVER)
    assert attributes(request) == {
        "database.outcome": "success",
        "database.state": "closed",
        "payment.outcome": "failure",
        "payment.state": "closed",
    }
    assert request.events == ()


async def test_a_refusal_is_an_event(exporter: InMemorySpanExporter) -> None:
    """The event has the state and the seconds until a call may be admitted."""
    async with serving() as client:
        for _ in range(5):
            await client.get("/api/v1/exchange-rates/EUR")
        opened = of_kind(exporter, trace.SpanKind.SERVER)[-1]
        exporter.clear()
        await client.get("/api/v1/exchange-rates/EUR")

    [refused] = of_kind(exporter, trace.SpanKind.SERVER)
    [event] = refused.events
    assert attributes(opened) == {"payment.outcome": "failure", "payment.state": "open"}
    assert attributes(refused) == {"payment.outcome": "rejected", "payment.state": "open"}
    assert event.name == "circuit_breaker.rejected"
    assert event.attributes is not None
    assert event.attributes["circuit_breaker.name"] == "payment"
    assert event.attributes["circuit_breaker.state"] == "open"
    assert 0 < float(str(event.attributes["circuit_breaker.retry_after"])) <= 60
    assert of_kind(exporter, trace.SpanKind.CLIENT) == []


def test_a_circuit_outside_the_registry_records_its_outcome(
    exporter: InMemorySpanExporter,
) -> None:
    """Its state is unknown to the listener, and so is that of a circuit removed meanwhile."""
    breaker = CircuitBreaker(
        "alone", registry=None, listeners=[SpanListener(circuit_breaker_registry)]
    )
    with trace.get_tracer("test").start_as_current_span("alone"):
        breaker.call_sync(lambda: "answered")

    [span] = exporter.get_finished_spans()
    assert attributes(span) == {"alone.outcome": "success"}


@pytest.mark.parametrize("path", ["/metrics", "/health/ready", "/dashboard", "/sandbox/mode"])
async def test_monitoring_requests_are_not_traced(
    path: str, exporter: InMemorySpanExporter
) -> None:
    """They arrive every few seconds and would drown the rest."""
    async with serving() as client:
        exporter.clear()
        await client.get(path)

    assert of_kind(exporter, trace.SpanKind.SERVER) == []


async def test_a_path_that_only_begins_like_theirs_is_traced(
    exporter: InMemorySpanExporter,
) -> None:
    """A service may have dashboards and metrics of its own."""
    async with serving() as client:
        exporter.clear()
        await client.get("/dashboards")

    assert len(of_kind(exporter, trace.SpanKind.SERVER)) == 1


async def test_nothing_is_traced_unless_it_is_enabled(exporter: InMemorySpanExporter) -> None:
    """This applies even if other code in the process has set a provider."""
    async with serving(traces=TraceSettings()) as client:
        await pay(client)

    assert exporter.get_finished_spans() == ()


def test_without_traces_nothing_of_the_extra_is_imported() -> None:
    """The extra need not be installed, and importing it takes time."""
    program = (
        "import sys; from example_service.core.settings import Settings; "
        "from example_service.main import create_app; "
        "create_app(Settings(environment='test')); "
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', "
        "'opentelemetry.instrumentation', 'opentelemetry.exporter', "
        "'example_service.infra.traces'))])"
    )

    shown = subprocess.check_output([sys.executable, "-c", program], text=True)

    assert shown.strip().splitlines()[-1] == "[]"


def test_without_the_extra_the_settings_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Startup fails with the command that installs the extra."""
    monkeypatch.setattr("example_service.core.settings.model.find_spec", lambda _: None)

    with pytest.raises(ValueError, match="pip install 'example-service\\[otel\\]'"):
        TraceSettings(enabled=True)
