"""Record the statements of an engine as spans."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy.ext.asyncio import AsyncEngine


@contextmanager
def recorded_statements(provider: TracerProvider, engine: AsyncEngine) -> Iterator[None]:
    """Record the statements of an engine until the end of the block, without their parameters."""
    instrumentor = SQLAlchemyInstrumentor()
    # The check rejects SQLAlchemy releases after 2.0. A test shows that this one works.
    instrumentor.instrument(
        engine=engine.sync_engine, tracer_provider=provider, skip_dep_check=True
    )
    try:
        yield
    finally:
        instrumentor.uninstrument()
