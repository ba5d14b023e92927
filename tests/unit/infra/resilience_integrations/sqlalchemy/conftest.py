"""A guarded SQLite engine, its breaker and its faults."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from example_service.infra.resilience import (
    CircuitBreaker,
)
from example_service.infra.resilience.sqlalchemy import (
    guard_engine,
)
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience_integrations.sqlalchemy.faulty_engine import (
    Faults,
    MakeEngine,
    breaker_of,
)


@pytest.fixture
def faults() -> Faults:
    """The faults of the driver."""
    return Faults()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    """A breaker that opens with the second failure."""
    return breaker_of(clock)


@pytest.fixture
def make_engine(tmp_path: Path, faults: Faults, breaker: CircuitBreaker) -> Iterator[MakeEngine]:
    """Creates guarded engines with these faults, and disposes of them after the test."""
    engines = []

    def make(by: CircuitBreaker = breaker, **options: Any) -> Engine:
        arguments = {"factory": faults.connection_class(), "check_same_thread": False}
        engine = create_engine(f"sqlite:///{tmp_path}/db", connect_args=arguments, **options)
        guard_engine(engine, by)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    """A connected, guarded engine with a table."""
    engine = make_engine()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE paid (id INTEGER PRIMARY KEY)"))
    return engine


@pytest.fixture
async def async_engine(
    tmp_path: Path, faults: Faults, breaker: CircuitBreaker
) -> AsyncIterator[AsyncEngine]:
    """A guarded asynchronous engine without a table."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/db", connect_args={"factory": faults.connection_class()}
    )
    guard_engine(engine, breaker)
    async with engine.connect():
        pass
    yield engine
    await engine.dispose()
