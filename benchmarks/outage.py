"""A database that hangs: how long the service keeps its clients waiting, and when it is back.

The service is a process as it is shipped, its database a real PostgreSQL behind a proxy that can
fall silent: it accepts connections and hands on nothing. Twenty clients, each on a connection of
its own, order payments and look at one in turn, and ask again as soon as they are answered. That is
measured while the circuit of the database is open, and once more for a service whose circuit never
opens, whose clients get one answer each.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import SecretStr

from benchmarks.rounds import Quartiles, quartiles
from benchmarks.tables import Table, Target, Verdict, exactly, with_quartiles
from example_service.core.settings import Settings
from example_service.migrations import upgrade
from tests.postgres import PostgresServer, running_postgres
from tests.service_process import DEADLINE_SECONDS, Service, kill
from tests.tcp_proxy import TCPProxy

CLIENTS = 20
OUTAGES = 5
REQUESTS_PER_OUTAGE = 1000
WARM_UP_REQUESTS = 400
QUICK_OUTAGES = 2
QUICK_REQUESTS = 40
NEVER = {"CIRCUIT_BREAKERS__DATABASE__FAILURE_THRESHOLD": "1000000000"}
"""Settings of a circuit that does not open."""
PAUSE_SECONDS = 0.02
"""How long clients wait between two requests where their time is not measured."""

OPEN = "open, {}"
PROBES = "open, let through to find out"
WITHOUT = "never open"
REFUSED = "circuit-breaker-open"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request led to.

    Attributes:
        method: The method of the request.
        status: The status of the answer.
        problem: The last part of the problem's type; None where there is no problem.
        seconds: How long the answer took.
        at: When it came, on the monotonic clock.
    """

    method: str
    status: int
    problem: str | None
    seconds: float
    at: float

    @property
    def is_success(self) -> bool:
        """Whether the client got what it came for."""
        return self.problem is None

    @property
    def is_refusal(self) -> bool:
        """Whether the circuit has refused."""
        return self.problem == REFUSED


class Client:
    """One connection to the service, with no more to it than the measured time can bear.

    Args:
        reader: Where answers come from.
        writer: Where requests go.
        payment: The path of a payment to look at.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, payment: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._payment = payment
        self._orders_next = True

    @classmethod
    async def connect(cls, url: str, payment: str = "") -> Self:
        """Connect to the service at an address."""
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port), payment)

    async def ask(self) -> Answer:
        """Order a payment and look at one, in turn."""
        self._orders_next = not self._orders_next
        if self._orders_next:
            return (await self.exchange("GET", self._payment))[0]
        return (await self.pay())[0]

    async def pay(self) -> tuple[Answer, dict[str, str]]:
        """Order a payment; the answer, and its body."""
        order = {"amount": 100, "currency": "EUR", "customer_id": "customer-1"}
        return await self.exchange("POST", "/api/v1/payments", json.dumps(order))

    async def exchange(
        self, method: str, path: str, body: str = ""
    ) -> tuple[Answer, dict[str, str]]:
        """Send a request and read the answer."""
        request = (
            f"{method} {path} HTTP/1.1\r\nHost: service\r\nIdempotency-Key: {uuid4()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        started = time.monotonic()
        self._writer.write(request.encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        content: dict[str, str] = json.loads(await self._reader.readexactly(length))
        ended = time.monotonic()
        status = int(head.split(" ", 2)[1])
        is_problem = "content-type: application/problem+json" in head
        problem = content["type"].rpartition("/")[2] if is_problem else None
        return Answer(method, status, problem, ended - started, ended), content

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long after the database spoke again.

    Attributes:
        first_success_seconds: The first client got what it came for.
        last_failure_seconds: The last one did not; 0 where none did.
    """

    first_success_seconds: float
    last_failure_seconds: float


class Crowd:
    """The clients of one service, and the way to its database.

    Args:
        clients: They come at once.
        proxy: The way.
    """

    def __init__(self, clients: Sequence[Client], proxy: TCPProxy) -> None:
        self._clients = clients
        self._proxy = proxy

    async def ask(self, requests: int) -> list[Answer]:
        """Have so many requests made, as fast as they are answered."""
        left = iter(range(requests))

        async def ask_on(client: Client) -> list[Answer]:
            return [await client.ask() for _ in left]

        answers = await asyncio.gather(*map(ask_on, self._clients))
        return [answer for some in answers for answer in some]

    async def fall_silent(self) -> None:
        """Silence the database, and wait until every client is refused."""
        self._proxy.fall_silent()

        async def until_refused(client: Client) -> None:
            while not (await client.ask()).is_refusal:
                pass

        await asyncio.gather(*map(until_refused, self._clients))

    async def hang(self) -> list[Answer]:
        """Silence the database, and have each client ask once."""
        self._proxy.fall_silent()
        return await asyncio.gather(*(client.ask() for client in self._clients))

    async def recover(self) -> Recovery:
        """Let the database speak, and the clients ask until each has succeeded twice in turn."""
        self._proxy.speak()
        spoke_at = time.monotonic()

        async def until_served(client: Client) -> list[Answer]:
            answers: list[Answer] = []
            while [answer.is_success for answer in answers[-2:]] != [True, True]:
                answers.append(await client.ask())
                await asyncio.sleep(PAUSE_SECONDS)
            return answers

        async with asyncio.timeout(DEADLINE_SECONDS):
            answers = await asyncio.gather(*map(until_served, self._clients))
        successes = [one.at for some in answers for one in some if one.is_success]
        failures = [one.at for some in answers for one in some if not one.is_success]
        return Recovery(min(successes) - spoke_at, max(failures, default=spoke_at) - spoke_at)


async def run(*, quick: bool) -> list[Table]:
    """Measure the service with its circuit and without.

    Args:
        quick: Only see that everything runs.

    Raises:
        pytest.skip.Exception: There is no PostgreSQL; the text tells where to get one.
    """
    outages = QUICK_OUTAGES if quick else OUTAGES
    requests = QUICK_REQUESTS if quick else REQUESTS_PER_OUTAGE
    with running_postgres() as postgres:
        settings = Settings(environment="test", database_url=SecretStr(postgres.url))
        await upgrade(settings)
        while_open: list[Answer] = []
        recoveries = []
        async with crowd_of_service(postgres) as crowd:
            for _ in range(outages):
                await crowd.fall_silent()
                while_open += await crowd.ask(requests)
                recoveries.append(await crowd.recover())
        without: list[Answer] = []
        recoveries_without = []
        async with crowd_of_service(postgres, **NEVER) as crowd:
            for _ in range(outages):
                without += await crowd.hang()
                recoveries_without.append(await crowd.recover())
    return [
        _waiting(while_open, without),
        _recovering({"open": recoveries, WITHOUT: recoveries_without}),
    ]


@asynccontextmanager
async def crowd_of_service(postgres: PostgresServer, **variables: str) -> AsyncIterator[Crowd]:
    """A service that has warmed up, and its clients."""
    async with TCPProxy(postgres.port).listening() as proxy:
        with _service(DATABASE_URL=postgres.url_at(proxy.port), **variables) as service:
            url = await asyncio.to_thread(lambda: service.url)
            first = await Client.connect(url)
            _, payment = await first.pay()
            first.close()
            path = f"/api/v1/payments/{payment['id']}"
            clients = [await Client.connect(url, path) for _ in range(CLIENTS)]
            crowd = Crowd(clients, proxy)
            await crowd.ask(WARM_UP_REQUESTS)
            yield crowd
            for client in clients:
                client.close()


@contextmanager
def _service(**variables: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), **variables)
        try:
            yield service
        finally:
            service.process.terminate()
            service.status()
            kill(service)


def _waiting(while_open: Sequence[Answer], without: Sequence[Answer]) -> Table:
    table = Table(
        f"{CLIENTS} clients of a service whose database hangs",
        ["the circuit is", "answers", "p50 ms", "p99 ms", "max ms"],
    )
    refused = [answer for answer in while_open if answer.is_refusal]
    for method in ("POST", "GET"):
        _add_row(table, OPEN.format(method), [one for one in refused if one.method == method])
    _add_row(table, PROBES, [answer for answer in while_open if not answer.is_refusal])
    _add_row(table, WITHOUT, without)
    p99 = exactly(_percentile([one.seconds * 1e3 for one in refused], 99))
    table.verdicts.append(Verdict("p99 of refusals, in milliseconds", p99, Target(20.0)))
    return table


def _add_row(table: Table, name: str, answers: Sequence[Answer]) -> None:
    if not answers:
        table.rows.append([name, "0", "", "", ""])
        return
    milliseconds = [answer.seconds * 1e3 for answer in answers]
    figures = {
        "p50": statistics.median(milliseconds),
        "p99": _percentile(milliseconds, 99),
        "max": max(milliseconds),
    }
    table.rows.append([name, f"{len(answers):,}", *(f"{one:,.1f}" for one in figures.values())])
    table.figures[name] = {f"{unit} ms": exactly(figure) for unit, figure in figures.items()}


def _recovering(recoveries: dict[str, list[Recovery]]) -> Table:
    table = Table(
        "Seconds after the database speaks again",
        ["the circuit was", "first success", "last failure"],
    )
    for name, some in recoveries.items():
        first = quartiles([one.first_success_seconds for one in some])
        last = quartiles([one.last_failure_seconds for one in some])
        table.rows.append([name, with_quartiles(first, 2), with_quartiles(last, 2)])
        table.figures[name] = {"first success": first, "last failure": last}
    slowest = Quartiles(*[max(one.last_failure_seconds for one in recoveries["open"])] * 3)
    table.verdicts.append(Verdict("seconds to the last failure, at worst", slowest, Target(5.0)))
    return table


def _percentile(figures: Sequence[float], percent: int) -> float:
    """The figure that so many per cent of all do not exceed."""
    return sorted(figures)[max(0, -(-len(figures) * percent // 100) - 1)]
