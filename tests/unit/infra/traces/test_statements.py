"""Statements become spans."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from example_service.infra.traces.statements import recorded_statements


async def run(engine: AsyncEngine, statement: str) -> None:
    """Run a statement with a parameter."""
    async with engine.connect() as connection:
        await connection.execute(text(statement), {"name": "secret"})


async def test_statements_are_recorded_without_their_parameters() -> None:
    """Each is a span until the end of the block, and none of them has a value."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engine = create_async_engine("sqlite+aiosqlite:///:memory:")

    with recorded_statements(provider, engine):
        await run(engine, "SELECT :name")
    await run(engine, "SELECT :name || 'later'")
    await engine.dispose()

    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "SELECT ?" in spans
    assert "secret" not in spans
    assert "later" not in spans
    provider.shutdown()
