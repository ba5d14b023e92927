"""A database that hangs: how long clients of the service wait, and when it is back.

The service is a process with its default settings. Its database is a real PostgreSQL behind a proxy
that can fall silent: it accepts connections but passes nothing on. Twenty clients, each with its
own connection, alternate between ordering a payment and reading one, without a pause. This is
measured once with the circuit of the database open, and once with a circuit that never opens.

Garbage collection of the clients is off meanwhile, because they share the machine with the service.
"""

import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import SecretStr

from benchmarks.rounds import quartiles
from benchmarks.tables import Table, Target, Verdict, exactly, with_quartiles
from example_service.core.settings import Settings
from example_service.migrations import upgrade
from tests.postgres import PostgresServer, running_postgres
from tests.service_process import DEADLINE_SECONDS, Service, kill
from tests.tcp_proxy import TCPProxy

CLIENTS = 20
OUTAGES = 5
SILENCE_SECONDS = 4.0
"""From the first refusal of the last client to the end of the first outage; at least one probe."""
LOOK_EVERY_SECONDS = 3.5
"""The wait of an open circuit plus the time until a probe fails. Each outage is longer than
the last by a part of it, so that the database comes back early as well as late within the wait."""
WARM_UP_SECONDS = 0.5
QUICK_OUTAGES = 2
QUICK_SILENCE_SECONDS = 0.1
NEVER = {"CIRCUIT_BREAKERS__DATABASE__FAILURE_THRESHOLD": "1000000000"}
"""Settings for a circuit that never opens."""

POLL_SECONDS = 0.02

OPEN = "open, {}"
PROBES = "open, probes"
WITHOUT = "never open"
REFUSED = "circuit-breaker-open"


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to one request.

    Attributes:
        method: The method of the request.
        status: The status of the response.
        problem: The last part of the problem's type, or None without a problem.
        seconds: The time until the response.
        at: The time of its arrival on the monotonic clock.
    """

    method: str
    status: int
    problem: str | None
    seconds: float
    at: float

    @property
    def is_success(self) -> bool:
        """Whether the client got what it asked for."""
        return self.problem is None

    @property
    def is_refusal(self) -> bool:
        """Whether the circuit refused the request."""
        return self.problem == REFUSED


class Client:
    """One connection to the service, minimal so that it adds little to the measured time.

    Args:
        reader: Receives responses.
        writer: Sends requests.
        payment: The path of a payment to read.
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
        """Connect to the service."""
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port), payment)

    async def ask(self) -> Answer:
        """Order a payment or read one, in turn."""
        self._orders_next = not self._orders_next
        if self._orders_next:
            return (await self.exchange("GET", self._payment))[0]
        return (await self.pay())[0]

    async def pay(self) -> tuple[Answer, dict[str, str]]:
        """Order a payment, and return the response and its body."""
        order = {"amount": 100, "currency": "EUR", "customer_id": "customer-1"}
        return await self.exchange("POST", "/api/v1/payments", json.dumps(order))

    async def exchange(
        self, method: str, path: str, body: str = ""
    ) -> tuple[Answer, dict[str, str]]:
        """Send a request and read the response."""
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
        """Close the connection."""
        self._writer.close()


@dataclass(frozen=True, slots=True)
class Outage:
    """What clients saw of one outage of the database.

    Attributes:
        answers: The responses to requests that were in progress during the outage or, if the
            circuit opens, after all clients were refused.
        first_success_seconds: The time from the end of the outage to the first success.
        last_failure_seconds: The time from the end of the outage to the last failure, or 0.
    """

    answers: list[Answer]
    first_success_seconds: float
    last_failure_seconds: float


class Crowd:
    """The clients of one service, and the proxy to its database.

    Args:
        clients: Send requests at the same time, and again after each response.
        proxy: The proxy to the database.
    """

    def __init__(self, clients: Sequence[Client], proxy: TCPProxy) -> None:
        self._clients = clients
        self._proxy = proxy
        self._answers: dict[Client, list[Answer]] = {client: [] for client in clients}

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Let all clients send requests until the end of the block."""
        over = asyncio.Event()

        async def ask_on(client: Client) -> None:
            while not over.is_set():
                self._answers[client].append(await client.ask())

        async with asyncio.TaskGroup() as tasks:
            for client in self._clients:
                tasks.create_task(ask_on(client))
            yield
            over.set()

    async def outage(self, seconds: float, *, opens: bool) -> Outage:
        """Silence the database, let it respond again, and wait until all clients are served.

        Args:
            seconds: The length of the outage from the time at which all clients are refused.
            opens: Whether the circuit opens; otherwise the seconds begin with the outage.
        """
        for answers in self._answers.values():
            answers.clear()
        self._proxy.fall_silent()
        if opens:
            await self._until_each(lambda answers: any(answer.is_refusal for answer in answers))
        from_then = time.monotonic()
        await asyncio.sleep(seconds)
        self._proxy.speak()
        spoke_at = time.monotonic()
        await self._until_each(
            lambda answers: (
                [answer.is_success and answer.at > spoke_at for answer in answers[-2:]]
                == [True, True]
            )
        )
        answers = [answer for some in self._answers.values() for answer in some]
        later = [answer for answer in answers if answer.at > spoke_at]
        failures = [answer.at for answer in later if not answer.is_success]
        return Outage(
            [
                answer
                for answer in answers
                if answer.at > from_then and answer.at - answer.seconds < spoke_at
            ],
            min(answer.at for answer in later if answer.is_success) - spoke_at,
            max(failures, default=spoke_at) - spoke_at,
        )

    async def _until_each(self, is_met: Callable[[list[Answer]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not all(map(is_met, self._answers.values())):  # noqa: ASYNC110 - There is no event to wait for.
                await asyncio.sleep(POLL_SECONDS)


async def run(*, quick: bool) -> list[Table]:
    """Measure the service with its circuit and without.

    Args:
        quick: Only check that everything runs.

    Raises:
        pytest.skip.Exception: There is no PostgreSQL; the message says how to get it.
    """
    number = QUICK_OUTAGES if quick else OUTAGES
    shortest = QUICK_SILENCE_SECONDS if quick else SILENCE_SECONDS
    silences = [shortest + LOOK_EVERY_SECONDS * index / number for index in range(number)]
    gc.disable()
    try:
        with running_postgres() as postgres:
            settings = Settings(environment="test", database_url=SecretStr(postgres.url))
            await upgrade(settings)
            async with crowd_of_service(postgres) as crowd:
                outages = [await crowd.outage(seconds, opens=True) for seconds in silences]
            async with crowd_of_service(postgres, **NEVER) as crowd:
                without = [await crowd.outage(seconds, opens=False) for seconds in silences]
    finally:
        gc.enable()
    return [_waiting(outages, without), _recovering({"open": outages, WITHOUT: without})]


@asynccontextmanager
async def crowd_of_service(postgres: PostgresServer, **variables: str) -> AsyncIterator[Crowd]:
    """Run a service with warm caches and its clients."""
    async with TCPProxy(postgres.port).listening() as proxy:
        with _service(DATABASE_URL=postgres.url_at(proxy.port), **variables) as service:
            url = await asyncio.to_thread(lambda: service.url)
            first = await Client.connect(url)
            _, payment = await first.pay()
            first.close()
            path = f"/api/v1/payments/{payment['id']}"
            clients = [await Client.connect(url, path) for _ in range(CLIENTS)]
            crowd = Crowd(clients, proxy)
            async with crowd.asking():
                await asyncio.sleep(WARM_UP_SECONDS)
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


def _waiting(outages: Sequence[Outage], outages_without: Sequence[Outage]) -> Table:
    table = Table(
        f"{CLIENTS} clients of a service whose database hangs",
        ["the circuit is", "answers", "p50 ms", "p99 ms", "max ms"],
    )
    while_open = [answer for outage in outages for answer in outage.answers]
    without = [answer for outage in outages_without for answer in outage.answers]
    refused = [answer for answer in while_open if answer.is_refusal]
    for method in ("POST", "GET"):
        _add_row(
            table, OPEN.format(method), [answer for answer in refused if answer.method == method]
        )
    _add_row(table, PROBES, [answer for answer in while_open if not answer.is_refusal])
    _add_row(table, WITHOUT, without)
    p99 = exactly(_percentile([answer.seconds * 1e3 for answer in refused], 99))
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
    table.rows.append(
        [name, f"{len(answers):,}", *(f"{figure:,.1f}" for figure in figures.values())]
    )
    table.figures[name] = {f"{unit} ms": exactly(figure) for unit, figure in figures.items()}


def _recovering(outages: Mapping[str, Sequence[Outage]]) -> Table:
    table = Table(
        "Seconds after the database responds again",
        ["the circuit was", "first success", "last failure"],
    )
    for name, some in outages.items():
        first = quartiles([outage.first_success_seconds for outage in some])
        last = quartiles([outage.last_failure_seconds for outage in some])
        table.rows.append([name, with_quartiles(first, 2), with_quartiles(last, 2)])
        table.figures[name] = {"first success": first, "last failure": last}
    slowest = exactly(max(outage.last_failure_seconds for outage in outages["open"]))
    table.verdicts.append(Verdict("seconds to the last failure, at worst", slowest, Target(5.0)))
    return table


def _percentile(figures: Sequence[float], percent: int) -> float:
    """The value that this percentage of the values does not exceed."""
    return sorted(figures)[max(0, -(-len(figures) * percent // 100) - 1)]
