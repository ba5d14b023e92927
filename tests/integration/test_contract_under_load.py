"""Mixed load while one part after another fails: every response follows the contract."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from example_service.migrations import upgrade
from tests.databases import settings_for
from tests.ports import lasting_port
from tests.postgres import PostgresServer, running_postgres
from tests.service_process import Service, kill
from tests.tcp_proxy import TCPProxy

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("CONTRACT_SECONDS", "20"))
"""Set CONTRACT_SECONDS=300 for a longer run by hand."""
CLIENTS = 8
MODES = ("failing", "slow", "hanging", "refusing", "garbled", "flaky", "healthy")
PROVIDER_STATUSES = {502}
"""Further statuses of a call to a failing provider that has no fallback."""

LIMITS = {
    "DATABASE__POOL_SIZE": "4",
    "DATABASE__POOL_TIMEOUT_SECONDS": "1",
    "DATABASE__CONNECT_TIMEOUT_SECONDS": "1",
    "DATABASE__STATEMENT_TIMEOUT_SECONDS": "1",
    "PAYMENT_PROVIDER__TIMEOUT_SECONDS": "1",
    "CIRCUIT_BREAKERS__DATABASE__RECOVERY_TIMEOUT": "0.5",
    "CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT": "0.5",
    "SHUTDOWN__GRACE_SECONDS": "5",
    "WORKERS": "2",
}


class Storm:
    """The service, its database, and the responses that its clients got.

    Attributes:
        answers: The number of responses by path and status.
        breaches: The responses that break the contract.
    """

    def __init__(self, folder: Path, postgres: PostgresServer, proxy: TCPProxy) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.breaches: list[str] = []
        self.happened: Counter[str] = Counter()
        self._folder = folder
        self._postgres = postgres
        self._proxy = proxy
        self._url = f"http://127.0.0.1:{lasting_port()}"
        self._service = self._started()
        self._ended = False
        self._random = random.Random(1)  # noqa: S311 - repeatable, not secret

    async def run(self, seconds: float) -> None:
        """Let clients send requests for that long while everything else fails."""
        assert await asyncio.to_thread(lambda: self._service.url)
        clients = [asyncio.create_task(self._ask(number)) for number in range(CLIENTS)]
        end = asyncio.get_running_loop().time() + seconds
        try:
            while asyncio.get_running_loop().time() < end:
                await self._disturb()
        finally:
            self._ended = True
            self._proxy.speak()
            await asyncio.gather(*clients)
            kill(self._service)

    def _started(self) -> Service:
        return Service(
            self._folder,
            **LIMITS,
            DATABASE_URL=self._postgres.url_at(self._proxy.port),
            PORT=self._url.rpartition(":")[2],
        )

    async def _ask(self, number: int) -> None:
        chosen = random.Random(number)  # noqa: S311
        async with httpx.AsyncClient(base_url=self._url, timeout=20.0, trust_env=False) as client:
            count = 0
            while not self._ended:
                count += 1
                method, path, options = _request(chosen, f"{number}-{count}")
                try:
                    answer = await client.request(method, path, **options)
                except httpx.TransportError:
                    # The worker was killed during the request or is not serving again yet.
                    await asyncio.sleep(0.05)
                    continue
                kind = "/".join(path.split("/")[:4]).partition("?")[0]
                self.answers[kind, answer.status_code] += 1
                if (breach := _breach(kind, answer)) is not None:
                    self.breaches.append(f"{method} {path}: {breach}: {answer.text[:200]}")

    async def _disturb(self) -> None:
        """Cause one disturbance and wait until it is over."""
        name = self._random.choice(
            ("worker", "restart", "crash", "silence", "read_only", "terminate", "migrate", "mode")
        )
        self.happened[name] += 1
        await getattr(self, f"_{name}")()
        await asyncio.sleep(self._random.uniform(0.2, 1.0))

    async def _worker(self) -> None:
        if workers := self._service.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(workers), signal.SIGKILL)

    async def _restart(self) -> None:
        self._service.process.terminate()
        await asyncio.to_thread(self._service.status)
        self._service = await asyncio.to_thread(self._started)
        assert await asyncio.to_thread(lambda: self._service.url)

    async def _crash(self) -> None:
        await asyncio.to_thread(self._postgres.crash)
        await asyncio.sleep(self._random.uniform(0.0, 2.0))
        await asyncio.to_thread(self._postgres.start)

    async def _silence(self) -> None:
        self._proxy.fall_silent()
        await asyncio.sleep(self._random.uniform(0.2, 3.0))
        self._proxy.speak()

    async def _read_only(self) -> None:
        await self._execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await self._execute("SELECT pg_reload_conf()")
        await asyncio.sleep(self._random.uniform(0.2, 2.0))
        await self._execute("SET transaction_read_only = off", "ALTER SYSTEM RESET ALL")
        await self._execute("SELECT pg_reload_conf()")

    async def _terminate(self) -> None:
        await self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
        )

    async def _migrate(self) -> None:
        await self._execute("ALTER TABLE payments ADD COLUMN IF NOT EXISTS note text")
        await self._execute("ALTER TABLE payments DROP COLUMN note")

    async def _mode(self) -> None:
        body = {"mode": self._random.choice(MODES)}
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            with contextlib.suppress(httpx.TransportError):
                await client.put(f"{self._url}/sandbox/mode", json=body)

    async def _execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(
            self._postgres.url, server_settings={"default_transaction_read_only": "off"}
        )
        try:
            for statement in statements:
                with contextlib.suppress(asyncpg.PostgresError):
                    await connection.execute(statement)
        finally:
            await connection.close()


def _request(chosen: random.Random, key: str) -> tuple[str, str, dict[str, Any]]:
    order = {"amount": 100, "currency": "EUR", "customer_id": "customer-7"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        (
            "POST",
            "/api/v1/payments",
            {"json": order, "headers": {"Idempotency-Key": key}},
        ),
        ("POST", "/api/v1/payments", {"json": {**order, "amount": -1}}),
        ("GET", "/api/v1/payments?limit=5", {}),
        ("GET", "/api/v1/payments/00000000-0000-4000-8000-000000000000", {}),
        ("GET", "/api/v1/exchange-rates/EUR", {}),
        ("GET", "/health/ready", {}),
        ("GET", "/health/live", {}),
        ("GET", "/health/circuit-breakers", {}),
        ("GET", "/metrics", {}),
        ("GET", "/nowhere", {}),
    ]
    return chosen.choice(requests)


def _breach(kind: str, answer: httpx.Response) -> str | None:
    """How an answer breaks the contract, or None if it does not."""
    status = answer.status_code
    if answer.is_success:
        return None
    if answer.headers.get("content-type") != "application/problem+json":
        return f"{status} is not a problem document"
    if 400 <= status < 500 or (status in PROVIDER_STATUSES and "exchange-rates" in kind):
        return None
    if status not in {503, 504}:
        return f"{status} is not in the contract"
    return None if int(answer.headers.get("retry-after", "0")) > 0 else f"{status} without a wait"


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server that may crash and be changed."""
    with running_postgres() as server:
        yield server


async def test_every_answer_follows_the_contract(postgres: PostgresServer, tmp_path: Path) -> None:
    """Whatever fails, a response is 2xx, 4xx, or 503 or 504 with a wait."""
    await upgrade(settings_for(postgres.url))
    async with TCPProxy(postgres.port).listening() as proxy:
        storm = Storm(tmp_path, postgres, proxy)
        await storm.run(SECONDS)

    assert storm.breaches == [], Counter(breach.partition(": {")[0] for breach in storm.breaches)
    print(*sorted(storm.happened.items()), *sorted(storm.answers.items()), sep="\n")  # noqa: T201
    assert sum(storm.answers.values()) > CLIENTS * 10
    assert any(status < 300 for _, status in storm.answers)
