"""Several replicas of the service on one PostgreSQL, which share pending payments."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from example_service.core.settings import Settings
from example_service.infra.database.database import Database, open_database
from example_service.payments.models import Payment, PaymentStatus
from tests.chaos.sandbox import Sandbox, running_sandbox
from tests.service_process import Service, kill

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 240.0
ORDERS = 200
SUCCESSES = re.compile(r'\ncircuit_breaker_successes_total\{name="payment"\} (\S+)\n')


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """The common provider of all replicas."""
    with running_sandbox(1, tmp_path) as sandbox:
        yield sandbox


@pytest.fixture
def replicas(
    postgres_settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> Iterator[list[Service]]:
    """Three processes of the service with short waits."""
    services = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        services.append(
            Service(
                folder,
                DATABASE_URL=postgres_settings.database_url.get_secret_value(),
                DATABASE__POOL_SIZE="3",
                DATABASE__POOL_TIMEOUT_SECONDS="60",
                DATABASE__CONNECT_TIMEOUT_SECONDS="60",
                CIRCUIT_BREAKERS__DATABASE__SLOW_CALL_DURATION="60",
                PAYMENT_PROVIDER__BASE_URL=sandbox.provider_url,
                CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT="0.2",
                CIRCUIT_BREAKERS__PAYMENT__SUCCESS_THRESHOLD="1",
                PAYMENTS__BATCH_SIZE="5",
                PAYMENTS__CLAIM_SECONDS="5",
                PAYMENTS__POLL_SECONDS="0.05",
                PAYMENTS__RETRY_SECONDS="0.5",
                PAYMENTS__MAX_RETRY_SECONDS="1",
            )
        )
    yield services
    for service in services:
        kill(service)


async def order(client: httpx.AsyncClient, urls: list[str]) -> list[str]:
    """Order many payments, a few at once, from all replicas in turn, and return their IDs."""
    few = asyncio.Semaphore(10)

    async def post(number: int) -> str:
        async with few:
            response = await client.post(
                f"{urls[number % len(urls)]}/api/v1/payments",
                json={"amount": 100 + number, "currency": "EUR", "customer_id": "customer-7"},
                headers={"Idempotency-Key": f"order-{number}"},
            )
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    return await asyncio.gather(*(post(number) for number in range(ORDERS)))


async def statuses(database: Database) -> Counter[PaymentStatus]:
    """The number of payments by status."""
    query = select(Payment.status, func.count().label("payments")).group_by(Payment.status)
    async with database.transaction() as session:
        rows = (await session.execute(query)).all()
    return Counter({row.status: row.payments for row in rows})


async def finished(database: Database, number: int) -> None:
    """Wait until that many payments have succeeded."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await statuses(database))[PaymentStatus.SUCCEEDED] < number:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def successes(client: httpx.AsyncClient, url: str) -> float:
    """The number of successful calls of a replica to the provider."""
    found = SUCCESSES.search((await client.get(f"{url}/metrics")).text)
    assert found is not None
    return float(found[1])


async def test_replicas_share_the_work_and_charge_each_payment_once(
    replicas: list[Service], sandbox: Sandbox, postgres_settings: Settings
) -> None:
    """One is killed while it works, and the others finish the payments it had claimed."""
    urls = [service.url for service in replicas]
    async with (
        open_database(postgres_settings) as database,
        httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client,
    ):
        await sandbox.turn({"mode": "failing"})
        ids = await order(client, urls)
        assert await statuses(database) == {PaymentStatus.PENDING: ORDERS}

        await sandbox.turn({"mode": "healthy"})
        await finished(database, 1)
        replicas[0].process.kill()
        await finished(database, ORDERS)

        assert await statuses(database) == {PaymentStatus.SUCCEEDED: ORDERS}
        charges = await sandbox.charges()
        shares = [await successes(client, url) for url in urls[1:]]

    charged = {charge.idempotency_key: charge.times_charged for charge in charges}
    assert charged == dict.fromkeys(ids, 1)
    assert sum(charge.times_charged for charge in charges) == ORDERS
    assert all(share > 0 for share in shares), shares
