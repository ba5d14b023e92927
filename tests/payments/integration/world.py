"""A running service, its database, and the responses that its clients got."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import httpx

from tests.service_process import DEADLINE_SECONDS, Service

CLIENTS = 10
OBSERVED = (
    "/health/live",
    "/health/ready",
    "/health/circuit-breakers",
    "/metrics",
    "/api/v1/exchange-rates/EUR",
)


@dataclass(frozen=True)
class Answer:
    """One response and its time."""

    path: str
    response: httpx.Response
    began: float
    seconds: float

    @property
    def kind(self) -> str:
        """The status, or the slug of the problem."""
        if self.response.is_error:
            return str(self.response.json()["type"]).rpartition("/")[2]
        return str(self.response.status_code)


class World:
    """The service, its database and the responses that its clients got.

    Args:
        service: The process.
        client: Sends requests to it.
    """

    def __init__(self, service: Service, client: httpx.AsyncClient) -> None:
        self.service = service
        self.client = client
        self.answers: list[Answer] = []

    async def get(self, path: str) -> Answer:
        """Send a GET request."""
        return await self._ask(path, self.client.get(path))

    async def pay(self) -> Answer:
        """Order a new payment."""
        order = {"amount": 100, "currency": "EUR", "customer_id": "customer-1"}
        headers = {"Idempotency-Key": str(uuid4())}
        path = "/api/v1/payments"
        return await self._ask(path, self.client.post(path, json=order, headers=headers))

    async def _ask(self, path: str, asking: Awaitable[httpx.Response]) -> Answer:
        began = time.monotonic()
        response = await asking
        answer = Answer(path, response, began, time.monotonic() - began)
        self.answers.append(answer)
        return answer

    @asynccontextmanager
    async def under_load(self, payment: str) -> AsyncIterator[None]:
        """Let clients and monitoring send requests repeatedly until the end of the block."""
        asks: list[Callable[[], Awaitable[Answer]]] = [
            *[self.pay] * (CLIENTS // 2),
            *[partial(self.get, payment)] * (CLIENTS // 2),
            *[partial(self.get, path) for path in OBSERVED],
        ]
        over = asyncio.Event()

        async def repeat(ask: Callable[[], Awaitable[Answer]]) -> None:
            while not over.is_set():
                await ask()
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as tasks:
            for ask in asks:
                tasks.create_task(repeat(ask))
            yield
            over.set()

    async def until_answers_are(self, *kinds: str, path: str = "/api/v1/payments") -> None:
        """Wait until the last responses for a path are of these kinds."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            # The load continues meanwhile.
            while {answer.kind for answer in self.of(path)[-2 * CLIENTS :]} - set(kinds):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def of(self, path: str, since: float = 0.0, until: float = float("inf")) -> list[Answer]:
        """The responses to requests for a path prefix that were sent and answered in this span."""
        return [
            answer
            for answer in self.answers
            if answer.path.startswith(path)
            and since <= answer.began
            and answer.began + answer.seconds < until
        ]

    async def metric(self, name: str) -> float:
        """The sum of a metric over labels and workers."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
