"""What the open circuit of the database refuses, and when it probes again."""

from asyncio import gather, sleep
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import event

from example_service.core.settings import Settings
from example_service.infra.database.database import DATABASE_BREAKER, Database, database_breaker
from example_service.infra.database.engine import create_engine
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """The breaker's clock."""
    return FakeClock()


async def test_an_open_circuit_refuses_before_there_is_a_session(tmp_path: Path) -> None:
    """The block is not entered, no connection is opened, and one refusal is counted."""
    url = SecretStr(f"sqlite:///{tmp_path}/database.sqlite3")
    engine = create_engine(Settings(environment="test", database_url=url))
    breaker = CircuitBreaker("database", registry=None)
    database = Database(engine, breaker)
    connects: list[object] = []
    event.listen(engine.sync_engine, "do_connect", lambda *_: connects.append(_))
    breaker.force_open("a test")
    entered = False
    with pytest.raises(CircuitOpenError):
        async with database.transaction():
            entered = True

    assert (entered, connects, breaker.total_rejections) == (False, [], 1)


async def test_the_next_probe_is_soon_even_in_a_long_outage(clock: FakeClock) -> None:
    """The wait does not grow, and each probe costs one failed call, whatever the load."""
    registry = CircuitBreakerRegistry()
    registry.configure({DATABASE_BREAKER: {"clock": clock}})
    breaker = database_breaker(registry)
    admitted, waits = [], []
    for _ in range(5):
        results = await gather(*(breaker.call(refused) for _ in range(10)), return_exceptions=True)
        admitted.append(sum(isinstance(result, OSError) for result in results))
        waits.append(breaker.get_metrics()["retry_after"])
        clock.advance(waits[-1])

    assert admitted == [10, 1, 1, 1, 1]
    assert set(waits) == {2.0}


async def refused() -> None:
    """Fail like a database that is down, after letting the other tasks run."""
    await sleep(0)
    raise ConnectionRefusedError
