"""The ways in which services use breakers, each as a whole: the breaker, its client, its outage.

`docs/patterns.md` shows the same ones to readers. What the breaker does in detail is tested with
its modules.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Protocol

import httpx
import pytest
import respx
from fastapi import Depends, FastAPI
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

from example_service.core.exceptions import CircuitBreakerOpenException
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
)
from example_service.infra.resilience.testing import FakeClock

WAREHOUSE = "https://warehouse.test"


@pytest.fixture
def clock() -> FakeClock:
    """The time that breakers under test go by."""
    return FakeClock()


@pytest.fixture
def warehouse() -> Iterator[respx.MockRouter]:
    """A network in which only the warehouse can be reached."""
    with respx.mock(base_url=WAREHOUSE, assert_all_called=False) as router:
        yield router


async def trip(breaker: CircuitBreaker) -> None:
    """Fail as often as it takes to open the circuit."""

    async def fail() -> None:
        raise ConnectionError

    for _ in range(breaker.failure_threshold):
        with pytest.raises(ConnectionError):
            await breaker.call(fail)
    assert breaker.is_open


# --- an API of somebody else


async def test_outage_of_an_api_is_cut_off_and_over_by_itself(
    warehouse: respx.MockRouter, clock: FakeClock
) -> None:
    """Errors of the transport and of the server open the circuit, and probes close it again."""
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


async def test_answer_that_is_not_raised_counts_as_failure(warehouse: respx.MockRouter) -> None:
    """A client that hands responses on unread may say by the response what has failed."""

    def is_overload(response: httpx.Response) -> bool:
        return response.status_code in {429, 503}

    breaker = CircuitBreaker("stock", failure_threshold=2, is_failed_result=is_overload)
    warehouse.get("/stock").mock(side_effect=[httpx.Response(503), httpx.Response(429)])

    async with httpx.AsyncClient(base_url=WAREHOUSE) as client:
        for status in (503, 429):
            assert (await breaker.call(client.get, "/stock")).status_code == status

    assert breaker.is_open


async def test_only_lasting_faults_of_the_dependency_count(warehouse: respx.MockRouter) -> None:
    """What the caller did wrong passes through and leaves the circuit alone."""

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
    """Of one exception type some occurrences count and others do not."""

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
    """Tables of these tests."""


class Article(Base):
    """Something on a shelf."""

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


async def test_broken_database_is_not_asked_again(engine: AsyncEngine) -> None:
    """After three failed statements no session is bothered until the wait is over."""
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


# --- a client for another service


class StockClient:
    """Guards every call by one breaker of its own."""

    def __init__(self, http: httpx.AsyncClient, clock: FakeClock) -> None:
        """Make the breaker once, for as long as the client lives."""
        self.breaker = CircuitBreaker("stock", clock=clock)
        self._http = http

    async def units(self, article: str) -> int:
        """Units on the shelf, guarded by a function made for this one call."""

        @self.breaker.protected
        async def ask() -> int:
            response = await self._http.get(f"/stock/{article}")
            return int(response.raise_for_status().json()["units"])

        return await ask()

    def health_check(self) -> dict[str, Any]:
        """What a health page shows of this client."""
        return self.breaker.get_metrics()


async def test_client_class_guards_its_calls_and_tells_its_health(
    warehouse: respx.MockRouter, clock: FakeClock
) -> None:
    """A breaker in the instance remembers between calls whose guarded function is made anew."""
    route = warehouse.get("/stock/lamp").respond(json={"units": 3})
    async with httpx.AsyncClient(base_url=WAREHOUSE) as http:
        client = StockClient(http, clock)
        assert await client.units("lamp") == 3
        route.side_effect = httpx.ReadTimeout("late")
        for _ in range(5):
            with pytest.raises(httpx.ReadTimeout):
                await client.units("lamp")
        with pytest.raises(CircuitOpenError):
            await client.units("lamp")

    health = client.health_check()

    assert health.pop("last_failure_time") is not None
    assert health == {
        "state": "open",
        "failure_count": 5,
        "success_count": 0,
        "total_failures": 5,
        "total_successes": 1,
        "total_rejections": 1,
        "failure_rate": 5 / 6,
        "retry_after": 60.0,
        "opened_count": 1,
        "in_flight": 0,
        "reason": "5 failures in a row; last failures: ReadTimeout",
    }


class LedgerClient:
    """Reads tolerate more than writes do."""

    def __init__(self) -> None:
        """Make a breaker for each kind of operation."""
        self.reads = CircuitBreaker("ledger_read", failure_threshold=10, recovery_timeout=30.0)
        self.writes = CircuitBreaker("ledger_write", failure_threshold=3)

    async def entry(self, number: str) -> str:
        """Look one entry up."""
        return await self.reads.call(self._read, number)

    async def add(self, cents: int) -> None:
        """Write one entry."""
        await self.writes.call(self._write, cents)

    async def _read(self, number: str) -> str:
        return f"entry {number}"

    async def _write(self, cents: int) -> None:
        raise ConnectionError(cents)


async def test_reads_go_on_while_writes_are_cut_off() -> None:
    """Two breakers in front of one dependency open apart from each other."""
    client = LedgerClient()
    for cents in (1, 2, 3):
        with pytest.raises(ConnectionError, match=str(cents)):
            await client.add(cents)

    with pytest.raises(CircuitOpenError):
        await client.add(4)

    assert await client.entry("7") == "entry 7"
    assert (client.reads.state, client.writes.state) == (CircuitState.CLOSED, CircuitState.OPEN)


# --- what to do instead while the circuit is open


async def unused() -> str:
    """Stand for a dependency that must not be called."""
    raise AssertionError


async def from_memory(breaker: CircuitBreaker) -> str:
    """Show what was known before."""
    remembered = {"rate": "0.92"}
    try:
        return await breaker.call(unused)
    except CircuitOpenError:
        return remembered["rate"]


async def from_a_backup(breaker: CircuitBreaker) -> str:
    """Ask somebody else."""

    async def backup() -> str:
        return "0.93"

    try:
        return await breaker.call(unused)
    except CircuitOpenError:
        return await backup()


async def without_it(breaker: CircuitBreaker) -> str:
    """Do with less."""
    greeting = "Hello"
    with contextlib.suppress(CircuitOpenError):
        greeting = f"{greeting} {await breaker.call(unused)}"
    return greeting


async def put_off(breaker: CircuitBreaker) -> str:
    """Do it later."""
    queue: list[str] = []
    try:
        await breaker.call(unused)
    except CircuitOpenError:
        queue.append("charge")
    return f"{len(queue)} pending"


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [(from_memory, "0.92"), (from_a_backup, "0.93"), (without_it, "Hello"), (put_off, "1 pending")],
)
async def test_fallback_takes_over_while_the_circuit_is_open(
    fallback: Callable[[CircuitBreaker], Any], expected: str
) -> None:
    """A refusal is told apart from a failure, so that each has its own answer."""
    breaker = CircuitBreaker("rates")
    await trip(breaker)

    assert await fallback(breaker) == expected


async def test_refusal_can_be_turned_into_the_services_own_words() -> None:
    """The HTTP exception takes over what the refusal knows."""
    breaker = CircuitBreaker("rates", clock=FakeClock())
    await trip(breaker)

    async def rate() -> str:
        try:
            return await breaker.call(unused)
        except CircuitOpenError as refused:
            raise CircuitBreakerOpenException(
                refused.breaker_name,
                detail="Rates are not to be had now.",
                retry_after=refused.retry_after,
                state=refused.state,
            ) from refused

    with pytest.raises(CircuitBreakerOpenException) as raised:
        await rate()

    assert (raised.value.status_code, raised.value.retry_after) == (503, 60.0)
    assert str(raised.value) == "Rates are not to be had now."


# --- many breakers


class ResilienceConfig(Protocol):
    """What a team may decide for each dependency."""

    failure_threshold: int
    recovery_timeout: float


@dataclass
class StrictConfig:
    """A config of some settings module."""

    failure_threshold: int = 2
    recovery_timeout: float = 120.0


def test_factory_gives_every_service_breakers_of_one_kind() -> None:
    """A function of the team's own fixes what all have in common and takes the rest."""

    def breaker_for(service: str, config: ResilienceConfig) -> CircuitBreaker:
        return CircuitBreaker(
            f"{service}_api",
            failure_threshold=config.failure_threshold,
            recovery_timeout=config.recovery_timeout,
            expected_exception=httpx.HTTPError,
        )

    breaker = breaker_for("orders", StrictConfig())

    assert (breaker.name, breaker.failure_threshold) == ("orders_api", 2)
    assert (breaker.recovery_timeout, breaker.success_threshold) == (120.0, 2)


async def test_registry_finds_shows_and_resets_breakers() -> None:
    """One object answers for all breakers there are."""
    registry = CircuitBreakerRegistry()
    mail = CircuitBreaker("mail", registry=None)
    registry.register(mail)
    search = registry.get_or_create("search", failure_threshold=2)
    await trip(search)

    assert registry.get("mail") is mail
    with pytest.raises(KeyError, match="no circuit breaker named 'cache'"):
        registry.get("cache")
    states = {name: one["state"] for name, one in registry.get_all_metrics().items()}
    assert states == {"mail": "closed", "search": "open"}
    await registry.reset_all()
    assert search.is_closed


async def test_operator_resets_one_breaker_by_name() -> None:
    """Closing by hand forgets the outage, and the next call goes through at once."""
    registry = CircuitBreakerRegistry()
    breaker = registry.get_or_create("search")
    await trip(breaker)

    async def reset_by_hand(name: str) -> None:
        await registry.get(name).reset()

    await reset_by_hand("search")

    assert breaker.is_closed
    assert breaker.get_metrics()["total_failures"] == 0
    assert await breaker.call(lambda: "found") == "found"


# --- watching


async def test_monitor_alerts_about_open_circuits_and_high_failure_rates() -> None:
    """One look at the metrics is enough to decide whom to wake."""
    breakers = [CircuitBreaker("mail"), CircuitBreaker("search"), CircuitBreaker("maps")]
    await trip(breakers[0])
    await breakers[1].call(lambda: None)
    alerts: list[tuple[str, str]] = []

    def look(breaker: CircuitBreaker, alert: Callable[[str, str], None]) -> None:
        metrics = breaker.get_metrics()
        if metrics["failure_rate"] > 0.5:
            alert(breaker.name, "fails often")
        if metrics["state"] == "open":
            alert(breaker.name, f"open after {metrics['total_failures']} failures")

    for breaker in breakers:
        look(breaker, lambda *alert: alerts.append(alert))

    assert alerts == [("mail", "fails often"), ("mail", "open after 5 failures")]


async def test_metrics_can_be_shown_and_stored() -> None:
    """Every value is plain, the time of the last failure has its zone, the rate is a share."""
    breaker = CircuitBreaker("mail")
    before = datetime.now(UTC)
    await trip(breaker)

    stored = json.loads(json.dumps(breaker.get_metrics()))

    assert before <= datetime.fromisoformat(stored["last_failure_time"]) <= datetime.now(UTC)
    assert f"{stored['failure_rate']:.0%}" == "100%"


# --- within FastAPI


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """Speak to an application without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test")


async def test_health_page_is_degraded_while_any_circuit_is_open() -> None:
    """The page lists breakers by whatever key the service likes."""
    app = FastAPI()
    mail, search = CircuitBreaker("mail"), CircuitBreaker("search")

    @app.get("/health/circuit-breakers")
    async def circuit_breakers() -> dict[str, Any]:
        shown = {"mail": mail.get_metrics(), "search": search.get_metrics()}
        healthy = all(one["state"] == "closed" for one in shown.values())
        return {"status": "healthy" if healthy else "degraded", "breakers": shown}

    async with client_of(app) as client:
        before = (await client.get("/health/circuit-breakers")).json()
        await trip(search)
        after = (await client.get("/health/circuit-breakers")).json()

    assert (before["status"], after["status"]) == ("healthy", "degraded")
    assert [one["state"] for one in after["breakers"].values()] == ["closed", "open"]


async def test_breaker_is_injected_into_a_route() -> None:
    """A dependency hands the same breaker to every request, and tests put another in its place."""
    app = FastAPI()
    breaker = CircuitBreaker("search")

    async def get_search_breaker() -> CircuitBreaker:
        return breaker

    @app.get("/search")
    async def search(guard: Annotated[CircuitBreaker, Depends(get_search_breaker)]) -> str:
        try:
            async with guard:
                return "found"
        except CircuitOpenError:
            return "later"

    async with client_of(app) as client:
        assert (await client.get("/search")).json() == "found"
        await trip(breaker)
        assert (await client.get("/search")).json() == "later"
        app.dependency_overrides[get_search_breaker] = lambda: CircuitBreaker("other")
        assert (await client.get("/search")).json() == "found"


# --- testing code that uses a breaker


async def test_state_and_time_of_failure_can_be_set() -> None:
    """A test need not wait: it says that the circuit opened a while ago, and looks again."""
    breaker = CircuitBreaker("search", recovery_timeout=1.0)
    breaker._state = CircuitState.OPEN
    assert breaker.is_open
    breaker._last_failure_time = datetime.now(UTC) - timedelta(seconds=2)

    async with breaker._lock:
        await breaker._check_state()

    assert breaker.is_half_open


async def test_reset_gives_each_test_a_fresh_breaker() -> None:
    """A breaker of module level carries nothing over from one test to the next."""
    breaker = CircuitBreaker("search", failure_threshold=3)
    fresh = breaker.get_metrics()
    await trip(breaker)

    await breaker.reset()

    assert breaker.get_metrics() == fresh


# --- coming from another breaker, or from other values


def test_defaults_are_the_documented_ones() -> None:
    """A name is all that a breaker needs."""
    breaker = CircuitBreaker("search")

    assert (breaker.failure_threshold, breaker.recovery_timeout) == (5, 60.0)
    assert (breaker.success_threshold, breaker.half_open_max_calls) == (2, 3)
    assert breaker.expected_exception is Exception


def test_name_may_be_given_as_keyword() -> None:
    """Code that spells every parameter out works, too."""
    assert CircuitBreaker(name="search", failure_threshold=5).name == "search"


def test_name_is_required() -> None:
    """Without a name neither a log line nor a metric could be told apart."""
    with pytest.raises(TypeError, match="name"):
        CircuitBreaker(failure_threshold=2)  # type: ignore[call-arg]


async def test_fewer_successes_close_sooner(clock: FakeClock) -> None:
    """A circuit that stays half-open for long is told to be content with less."""

    async def probes_until_closed(success_threshold: int) -> int:
        breaker = CircuitBreaker("search", success_threshold=success_threshold, clock=clock)
        await trip(breaker)
        clock.advance(60)
        probes = 0
        while not breaker.is_closed:
            await breaker.call(lambda: None)
            probes += 1
        return probes

    assert [await probes_until_closed(wanted) for wanted in (10, 2)] == [10, 2]
