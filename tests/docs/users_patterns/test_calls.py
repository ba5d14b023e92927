"""A breaker around calls to an API and to a database, as services use it.

The files in this folder show complete patterns of how services use breakers: the breaker, its
client, and an outage. `docs/patterns.md` shows the same patterns to readers. The tests of the
modules cover the details.
"""

from collections.abc import AsyncIterator

import httpx
import pytest
import respx
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitOpenError,
)
from example_service.infra.resilience.testing import FakeClock
from tests.docs.users_patterns.outage import WAREHOUSE

# --- an external API


async def test_circuit_opens_in_an_outage_of_an_api_and_closes_by_itself(
    warehouse: respx.MockRouter, clock: FakeClock
) -> None:
    """Transport errors and server errors open the circuit, and probes close it again."""
    breaker = CircuitBreaker("stock", expected_exception=httpx.HTTPError, clock=clock)

    @breaker.protected
    async def units_in_stock(article: str) -> int:
        async with httpx.AsyncClient(base_url=WAREHOUSE) as client:
            response = await client.get(f"/stock/{article}")
            response.raise_for_status()
            return int(response.json()["units"])

    route = warehouse.get("/stock/lamp").respond(json={"units": 3})
    assert await units_in_stock("lamp") == 3
    route.side_effect = [httpx.ConnectError("down"), *[httpx.Response(503)] * 4]
    for _ in range(5):
        with pytest.raises(httpx.HTTPError):
            await units_in_stock("lamp")
    with pytest.raises(CircuitOpenError, match="'stock' is open"):
        await units_in_stock("lamp")
    assert route.call_count == 6

    route.side_effect = None
    clock.advance(60)
    assert [await units_in_stock("lamp") for _ in range(2)] == [3, 3]
    assert breaker.is_closed


async def test_response_can_count_as_failure(warehouse: respx.MockRouter) -> None:
    """A client that returns responses without raising can declare which of them are failures."""

    def is_overload(response: httpx.Response) -> bool:
        return response.status_code in {429, 503}

    breaker = CircuitBreaker("stock", failure_threshold=2, is_failed_result=is_overload)
    warehouse.get("/stock").mock(side_effect=[httpx.Response(503), httpx.Response(429)])

    async with httpx.AsyncClient(base_url=WAREHOUSE) as client:
        for status in (503, 429):
            assert (await breaker.call(client.get, "/stock")).status_code == status

    assert breaker.is_open


async def test_only_lasting_faults_of_the_dependency_count(warehouse: respx.MockRouter) -> None:
    """Errors of the caller are passed on, and do not affect the circuit."""

    class OverloadedError(Exception):
        pass

    class RefusedError(Exception):
        pass

    breaker = CircuitBreaker("orders", failure_threshold=3, expected_exception=OverloadedError)

    @breaker.protected
    async def order(article: str) -> None:
        async with httpx.AsyncClient(base_url=WAREHOUSE) as client:
            try:
                response = await client.post("/orders", json={"article": article})
            except httpx.TransportError as error:
                raise OverloadedError from error
        if response.status_code == httpx.codes.FORBIDDEN:
            raise RefusedError
        if response.is_server_error:
            raise OverloadedError

    route = warehouse.post("/orders").respond(403)
    for _ in range(10):
        with pytest.raises(RefusedError):
            await order("lamp")
    assert (breaker.is_closed, breaker.total_failures) == (True, 0)

    route.side_effect = [httpx.Response(500), httpx.ReadTimeout("late"), httpx.ConnectError("gone")]
    for _ in range(3):
        with pytest.raises(OverloadedError):
            await order("lamp")
    assert breaker.is_open


async def test_predicate_narrows_what_counts(warehouse: respx.MockRouter) -> None:
    """Some exceptions of a type count, and others do not."""

    def is_server_fault(error: Exception) -> bool:
        return not (isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error)

    breaker = CircuitBreaker(
        "stock", expected_exception=httpx.HTTPError, is_failure=is_server_fault
    )
    warehouse.get("/stock").mock(side_effect=[httpx.Response(404), httpx.Response(500)])

    for _ in range(2):
        with pytest.raises(httpx.HTTPStatusError):
            async with breaker, httpx.AsyncClient(base_url=WAREHOUSE) as client:
                (await client.get("/stock")).raise_for_status()

    assert breaker.total_failures == 1


# --- a database


class Base(DeclarativeBase):
    """The tables of these tests."""


class Article(Base):
    """An article on a shelf."""

    __tablename__ = "articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    """A database with one article in it."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        session.add(Article(id=1, title="Lamp"))
    yield engine
    await engine.dispose()


async def drop_tables(connection: AsyncConnection) -> None:
    """Make every later statement fail."""
    await connection.run_sync(Base.metadata.drop_all)


async def test_broken_database_is_not_queried_again(engine: AsyncEngine) -> None:
    """After three failed statements, no query is made until the wait is over."""
    breaker = CircuitBreaker("database", failure_threshold=3, recovery_timeout=30.0)
    sessions = async_sessionmaker(engine)

    async def title_of(session: AsyncSession, article_id: int) -> str | None:
        async with breaker:
            statement = select(Article.title).where(Article.id == article_id)
            return (await session.execute(statement)).scalar_one_or_none()

    async with sessions() as session:
        assert await title_of(session, 1) == "Lamp"
        assert await title_of(session, 2) is None
    async with engine.begin() as connection:
        await drop_tables(connection)
    async with sessions() as session:
        for _ in range(3):
            with pytest.raises(OperationalError):
                await title_of(session, 1)
        with pytest.raises(CircuitOpenError) as refused:
            await title_of(session, 1)

    assert refused.value.breaker_name == "database"
    assert breaker.get_metrics()["total_successes"] == 2
