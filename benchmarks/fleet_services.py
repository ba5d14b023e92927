"""Services as one circuit: how soon the others refuse after the failure that opened it.

Each service is a process with its default settings, its own port and its own sandbox. All use one
Valkey. Only the sandbox of the first fails, so the others refuse only because of the fleet.
"""

import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.service_process import Service, kill, wait_until

RATES = "/api/v1/exchange-rates/EUR"
TOKEN = secrets.token_hex(16)
POLL_SECONDS = 0.002


def seconds_to_follow(valkey_url: str, services: int, openings: int) -> list[float]:
    """Open the circuit through the first service, and return when each other one refuses."""
    with ExitStack() as stack:
        clients = [stack.enter_context(_client(valkey_url)) for _ in range(services)]
        threads = stack.enter_context(ThreadPoolExecutor(services))
        seconds = list[float]()
        for _ in range(openings):
            opened = _trip(clients[0])
            refused = threads.map(_first_refusal, clients[1:])
            seconds += [at - opened for at in refused]
            _heal(clients)
        return seconds


@contextmanager
def _client(valkey_url: str) -> Iterator[httpx.Client]:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(
            Path(folder),
            REDIS__URL=valkey_url,
            ADMIN__TOKEN=TOKEN,
            LOG__LEVEL="ERROR",
            LOG__FORMAT="console",
            LIMITS__MONITORING_CACHE_SECONDS="0",
        )
        try:
            with httpx.Client(base_url=service.url) as client:
                yield client
        finally:
            kill(service)


def _trip(client: httpx.Client) -> float:
    """Let calls fail until one is refused, and return the time of the last failure."""
    _switch(client, "failing")
    failed_at = 0.0
    while client.get(RATES).status_code != httpx.codes.SERVICE_UNAVAILABLE:
        failed_at = time.monotonic()
    return failed_at


def _first_refusal(client: httpx.Client) -> float:
    while client.get(RATES).status_code != httpx.codes.SERVICE_UNAVAILABLE:
        time.sleep(POLL_SECONDS)
    return time.monotonic()


def _heal(clients: Sequence[httpx.Client]) -> None:
    _switch(clients[0], "healthy")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    clients[0].post("/admin/circuit-breakers/payment/reset", headers=headers).raise_for_status()
    wait_until(lambda: all(client.get(RATES).is_success for client in clients))


def _switch(client: httpx.Client, mode: str) -> None:
    client.put("/sandbox/mode", json={"mode": mode}).raise_for_status()
