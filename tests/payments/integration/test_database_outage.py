"""The whole service while its database is silent, dead, shut down or locked, and after."""

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from example_service.core.settings import Settings
from example_service.migrations import upgrade
from tests.payments.integration.world import CLIENTS, Answer, World
from tests.postgres import PostgresServer, running_postgres
from tests.service_process import DEADLINE_SECONDS, ROOT, Service, kill
from tests.tcp_proxy import TCPProxy

pytestmark = pytest.mark.integration

POOL_SIZE = 4
LIMITS = {
    "DATABASE__POOL_SIZE": str(POOL_SIZE),
    "DATABASE__POOL_TIMEOUT_SECONDS": "1",
    "DATABASE__CONNECT_TIMEOUT_SECONDS": "1",
    "DATABASE__STATEMENT_TIMEOUT_SECONDS": "2",
}
MAX_REQUEST_SECONDS = 1.0 + max(2 * 1.0, 2.0 + 1.0)
"""A request waits for a connection from the pool. Then it waits for an old connection to respond
and for a new one to be made, or for a statement, which has a second more than on the server."""
READINESS_SECONDS = 2.0
READINESS_KEPT_SECONDS = 1.0
PROBE_EVERY_SECONDS = 2.0
BUSY_MACHINE_SECONDS = 30.0

LEFT_BEHIND = re.compile(
    '"level":"error"|Traceback|never retrieved|never awaited|garbage collector'
    "|non-checked-in|was destroyed"
)


class Outage(Protocol):
    """An outage of a database with its end."""

    def begin(self, postgres: PostgresServer, proxy: TCPProxy) -> None:
        """Begin the outage."""

    def end(self, postgres: PostgresServer, proxy: TCPProxy) -> None:
        """End the outage."""


class Silence:
    """Connections are accepted, but nothing is answered."""

    def begin(self, _: PostgresServer, proxy: TCPProxy) -> None:
        """Begin the outage."""
        proxy.fall_silent()

    def end(self, _: PostgresServer, proxy: TCPProxy) -> None:
        """End the outage."""
        proxy.speak()


class Crash:
    """The server dies and refuses connections until it is restarted."""

    def begin(self, postgres: PostgresServer, _: TCPProxy) -> None:
        """Begin the outage."""
        postgres.crash()

    def end(self, postgres: PostgresServer, _: TCPProxy) -> None:
        """End the outage."""
        postgres.start()


class Shutdown(Crash):
    """An administrator shuts the server down, which notifies its clients."""

    def begin(self, postgres: PostgresServer, _: TCPProxy) -> None:
        """Begin the outage."""
        postgres.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """The server of this module."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def postgres(server: PostgresServer) -> PostgresServer:
    """The server, running and migrated."""
    if not server.is_running:
        server.start()
    await upgrade(Settings(environment="test", database_url=SecretStr(server.url)))
    return server


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[TCPProxy]:
    """The proxy between the service and the server."""
    async with TCPProxy(postgres.port).listening() as proxy:
        yield proxy


@pytest.fixture
async def start(
    tmp_path: Path, postgres: PostgresServer, proxy: TCPProxy
) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    """Start the service with its database, and kill it after the test."""
    services: list[Service] = []
    clients: list[httpx.AsyncClient] = []

    async def start_service(**variables: str) -> World:
        url = postgres.url_at(proxy.port)
        claims = {"PAYMENTS__CLAIM_SECONDS": "5", "PAYMENTS__POLL_SECONDS": "0.2"}
        service = Service(tmp_path, DATABASE_URL=url, **LIMITS, **claims, **variables)
        services.append(service)
        # The proxy must run meanwhile, because starting workers query their database.
        base_url = await asyncio.to_thread(lambda: service.url)
        client = httpx.AsyncClient(base_url=base_url, timeout=DEADLINE_SECONDS, trust_env=False)
        clients.append(client)
        return World(service, client)

    yield start_service
    for client in clients:
        await client.aclose()
    for service in services:
        kill(service)


StartService = Callable[..., Awaitable[World]]


async def connections(postgres: PostgresServer, state: str = "%") -> int:
    """The number of the service's connections on the server."""
    connection = await asyncpg.connect(postgres.url)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'example-service' AND state LIKE $1",
                state,
            )
        )
    finally:
        await connection.close()


async def no_transaction_is_open(postgres: PostgresServer) -> bool:
    """Whether the service has ended all its transactions."""
    return await connections(postgres, "%transaction%") == 0


async def ordered(world: World, kind: str) -> str:
    """The path of a new payment, as soon as an order gets this kind of answer.

    On a busy machine, the first connections to the database may take longer than the short limits.
    """
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (answer := await world.pay()).kind != kind:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.1)
    return answer.response.headers["Location"]


async def pending_payment(world: World) -> str:
    """The path of a payment that was not charged, but could be charged now."""
    await world.client.put("/sandbox/mode", json={"mode": "failing"})
    payment = await ordered(world, "202")
    await world.client.put("/sandbox/mode", json={"mode": "healthy"})
    return payment


async def finished(world: World, payment: str) -> bool:
    """Whether a payment has succeeded."""
    answer = await world.get(payment)
    return answer.kind == "200" and answer.response.json()["status"] == "succeeded"


async def eventually(is_true: Callable[[], Awaitable[Any]]) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await is_true():  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0.1)


# The results of probes; one that runs when the database comes back succeeds.
PROBED = ("database-unavailable", "200", "201", "202")


@pytest.mark.parametrize(
    ("outage", "workers"),
    [(Silence(), 1), (Silence(), 2), (Crash(), 1), (Shutdown(), 1)],
    ids=["silence", "silence, 2 workers", "crash", "shutdown"],
)
async def test_requests_fail_fast_and_the_service_recovers_by_itself(
    outage: Outage, workers: int, postgres: PostgresServer, proxy: TCPProxy, start: StartService
) -> None:
    """No client waits long, other routes work, and nothing is left behind."""
    world = await start(WORKERS=str(workers), PAYMENTS__RETRY_SECONDS="4")
    paid = await ordered(world, "201")
    pending = await pending_payment(world)
    async with world.under_load(paid):
        await asyncio.sleep(1.0)
        await world.until_answers_are("200", path="/health/ready")
        outage.begin(postgres, proxy)
        began = time.monotonic()
        await world.until_answers_are("circuit-breaker-open")
        opened = time.monotonic()
        await asyncio.sleep(2 * PROBE_EVERY_SECONDS)
        ended = time.monotonic()
        outage.end(postgres, proxy)
        await world.until_answers_are("200", "201")
        recovered = time.monotonic()
        await eventually(partial(finished, world, pending))
        await world.until_answers_are("200", path="/health/ready")

    # No request takes longer than the limits of its steps.
    longest = max(world.of("/"), key=lambda answer: answer.seconds)
    assert longest.seconds < MAX_REQUEST_SECONDS + BUSY_MACHINE_SECONDS, longest

    # An open circuit refuses all requests except probes, one at a time in each worker.
    during = world.of("/api/v1/payments", opened, ended)
    refused = [answer for answer in during if answer.kind == "circuit-breaker-open"]
    probes = workers * (1 + (ended - opened) // PROBE_EVERY_SECONDS)
    assert len(during) - len(refused) <= probes, [answer.kind for answer in during]
    assert {answer.kind for answer in during} <= {"circuit-breaker-open", *PROBED}
    for answer in refused:
        assert answer.response.status_code == 503
        assert answer.response.headers["Content-Type"] == "application/problem+json"
        assert 1 <= int(answer.response.headers["Retry-After"]) <= PROBE_EVERY_SECONDS
        assert answer.response.json()["breaker"] == "database"
    # It waits for nothing, so it takes hardly longer than a liveness probe at the same time.
    alive = median(answer.seconds for answer in world.of("/health/live", opened, ended))
    assert median(answer.seconds for answer in refused) < 0.5 + 2 * alive

    # Monitoring is always answered, and correctly.
    for path in ("/health/live", "/metrics", "/health/circuit-breakers"):
        assert {answer.kind for answer in world.of(path)} == {"200"}
        assert max(answer.seconds for answer in world.of(path)) < BUSY_MACHINE_SECONDS
    ready = world.of("/health/ready")
    assert max(answer.seconds for answer in ready) < READINESS_SECONDS + BUSY_MACHINE_SECONDS
    known = world.of("/health/ready", opened + READINESS_KEPT_SECONDS, ended)
    assert {answer.kind for answer in known} == {"not-ready"}
    # A second worker follows the first almost at once.
    shown = [
        answer.response.json()
        for answer in world.of("/health/circuit-breakers", opened + READINESS_KEPT_SECONDS, ended)
    ]
    assert {entry["status"] for entry in shown} == {"degraded"}
    assert "open" in {entry["breakers"]["database"]["state"] for entry in shown}
    assert {answer.kind for answer in world.of("/api/v1/exchange-rates/EUR")} == {"200"}

    # The service recovers by itself soon after the database.
    assert recovered - ended < 2 * PROBE_EVERY_SECONDS + BUSY_MACHINE_SECONDS
    assert opened - began < MAX_REQUEST_SECONDS + BUSY_MACHINE_SECONDS
    for payment in [pending, *accepted_later(world)]:
        await eventually(partial(finished, world, payment))

    # No connection is lost, and the logs have no task or connection that was never closed.
    await eventually(partial(no_connection_in_use, world))
    await eventually(partial(no_transaction_is_open, postgres))
    assert await connections(postgres) <= POOL_SIZE * workers
    world.service.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(world.service.status) == 0
    assert_nothing_left_behind(world.service)


def accepted_later(world: World) -> list[str]:
    """The paths of payments that were accepted and not finished at once."""
    answers = world.of("/api/v1/payments")
    return [answer.response.headers["Location"] for answer in answers if answer.kind == "202"]


async def have_arrived(world: World, requests: list[asyncio.Task[Answer]]) -> bool:
    """Whether the service works on all these requests, or has already answered one."""
    in_flight = await world.metric("http_requests_in_flight")
    return in_flight >= len(requests) or any(request.done() for request in requests)


async def no_connection_in_use(world: World) -> bool:
    """Whether every connection of every worker is back in its pool."""
    return await world.metric('database_pool_connections{state="in_use"') == 0.0


def assert_nothing_left_behind(service: Service) -> None:
    """Check that the logs have no unhandled exception, task or connection."""
    assert service.errors == ""
    assert [line for line in service.text.splitlines() if LEFT_BEHIND.search(line)] == []


async def test_statements_that_wait_for_a_lock_are_ended(
    postgres: PostgresServer, start: StartService
) -> None:
    """The server cancels them in time, the circuit opens, and connections stay open."""
    world = await start()
    paid = await ordered(world, "201")
    locking = await asyncpg.connect(postgres.url)
    async with world.under_load(paid):
        async with locking.transaction():
            await locking.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
            await world.until_answers_are("circuit-breaker-open", "database-unavailable")
            await asyncio.sleep(PROBE_EVERY_SECONDS)
        await world.until_answers_are("200", "201")
    await locking.close()

    assert max(answer.seconds for answer in world.of("/")) < (
        MAX_REQUEST_SECONDS + BUSY_MACHINE_SECONDS
    )
    kinds = {answer.kind for answer in world.of("/api/v1/payments")}
    assert {"circuit-breaker-open", "database-unavailable"} <= kinds
    assert {answer.kind for answer in world.of("/health/live")} == {"200"}
    assert {answer.kind for answer in world.of("/api/v1/exchange-rates/EUR")} == {"200"}
    await eventually(partial(no_connection_in_use, world))
    await eventually(partial(no_transaction_is_open, postgres))
    assert await connections(postgres) <= POOL_SIZE
    world.service.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(world.service.status) == 0
    assert_nothing_left_behind(world.service)


async def test_a_service_that_starts_before_its_database_waits_for_it(
    postgres: PostgresServer, start: StartService
) -> None:
    """It serves what it can, is not ready, and becomes ready without a restart."""
    postgres.stop()
    world = await start()
    assert (await world.get("/health/live")).kind == "200"
    assert (await world.get("/health/ready")).kind == "not-ready"
    assert (await world.pay()).kind in {"database-unavailable", "circuit-breaker-open"}

    postgres.start()

    async def is_paid() -> bool:
        return (await world.pay()).kind == "201"

    await eventually(is_paid)
    await eventually(partial(is_ready, world))


async def is_ready(world: World) -> bool:
    """Whether the service is ready."""
    return (await world.get("/health/ready")).kind == "200"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
async def test_a_signal_during_the_silence_ends_the_service_in_good_order(
    is_busy: bool, workers: int, proxy: TCPProxy, start: StartService
) -> None:
    """Neither idle nor hanging connections nor the payment worker delay it."""
    world = await start(WORKERS=str(workers))
    location = await ordered(world, "201")
    await asyncio.gather(*(world.pay() for _ in range(2 * POOL_SIZE)))
    proxy.fall_silent()
    hanging = [asyncio.create_task(world.get(location)) for _ in range(CLIENTS if is_busy else 0)]
    await asyncio.sleep(0.5)
    await eventually(partial(have_arrived, world, hanging))

    stopped_at = time.monotonic()
    world.service.process.send_signal(signal.SIGTERM)
    status = await asyncio.to_thread(world.service.status)

    # The worker has four seconds to stop; requests in flight end at their own limits.
    assert time.monotonic() - stopped_at < MAX_REQUEST_SECONDS + 4.0 + BUSY_MACHINE_SECONDS
    assert status == 0
    assert_nothing_left_behind(world.service)
    for answer in await asyncio.gather(*hanging):
        assert answer.kind in {"database-unavailable", "circuit-breaker-open"}


async def test_a_migration_of_a_silent_database_ends(
    tmp_path: Path, postgres: PostgresServer, proxy: TCPProxy
) -> None:
    """It ends after the connect timeout and reports that in one line."""
    proxy.fall_silent()
    started = time.monotonic()
    migrating = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "example_service", "migrate"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "DATABASE_URL": postgres.url_at(proxy.port), **LIMITS},
        stderr=subprocess.PIPE,
    )
    _, errors = await migrating.communicate()

    assert migrating.returncode == 1
    (line,) = errors.decode().splitlines()
    assert line.endswith("could not be migrated: no response in time")
    assert time.monotonic() - started < DEADLINE_SECONDS
