"""Breakers in several workers of a service, watched and administered as one."""

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service_process import Service, kill, wait_until

pytestmark = pytest.mark.integration

TOKEN = "a-token-of-more-than-sixteen"
RATES = "/api/v1/exchange-rates/EUR"
WORKERS = 2


class World:
    """The service, and what its clients see.

    Args:
        service: The process.
    """

    def __init__(self, service: Service) -> None:
        self.url = service.url

    def answers(self, path: str, times: int = 40) -> list[httpx.Response]:
        """Send requests over new connections, several at once, so that all workers get some."""
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda _: httpx.get(self.url + path), range(times)))

    def statuses(self) -> Counter[int]:
        """The number of requests for a rate by status."""
        return Counter(answer.status_code for answer in self.answers(RATES))

    def health(self) -> dict[str, Any]:
        """The response of the breakers' health endpoint."""
        body: dict[str, Any] = httpx.get(f"{self.url}/health/circuit-breakers").json()
        return body

    def failures(self) -> set[int]:
        """The number of failures of the payment breaker that the workers report."""
        answers = [answer.json() for answer in self.answers("/health/circuit-breakers", 10)]
        return {answer["breakers"]["payment"]["total_failures"] for answer in answers}

    def reported(self) -> set[str]:
        """The states of the circuits that the workers report."""
        return {answer.json()["status"] for answer in self.answers("/health/circuit-breakers")}

    def workers(self) -> set[int]:
        """The workers whose circuits are in the health response."""
        return set(self.health()["workers"])

    def order(self, what: str, **body: object) -> httpx.Response:
        """Change the payment breaker as an operator."""
        path = f"{self.url}/admin/circuit-breakers/payment/{what}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.post(path, headers=headers, json=body or None)


@pytest.fixture
def world() -> Iterator[World]:
    """The service with several workers."""
    with tempfile.TemporaryDirectory() as directory:
        service = Service(
            Path(directory),
            WORKERS=str(WORKERS),
            ADMIN__TOKEN=TOKEN,
            LIMITS__MONITORING_CACHE_SECONDS="0",
            PAYMENT_PROVIDER__TIMEOUT_SECONDS="20",
        )
        try:
            yield World(service)
        finally:
            kill(service)


def test_orders_apply_in_every_worker_and_in_later_ones(world: World) -> None:
    """Maintenance ends when an operator says so, not when a worker is replaced."""
    before = world.workers()
    assert len(before) == WORKERS

    answer = world.order("force-open", reason="maintenance").json()

    assert set(answer["workers"]) == before
    assert world.statuses() == {503: 40}
    killed = before.pop()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(world.workers()) == WORKERS and killed not in world.workers())
    assert world.statuses() == {503: 40}
    shown = world.health()["breakers"]["payment"]
    assert (shown["state"], shown["mode"]["reason"]) == ("open", "maintenance")

    assert set(world.order("reset").json()["workers"]) == world.workers()
    assert world.statuses() == {200: 40}
    assert world.health()["status"] == "healthy"


def test_any_worker_answers_for_all(world: World) -> None:
    """The response has sums and the state changes of all workers."""
    httpx.put(f"{world.url}/sandbox/mode", json={"mode": "failing"})
    failed = 0
    while httpx.get(world.url + RATES).status_code == 502:
        failed += 1

    # The counts of the other workers are up to a second old.
    wait_until(lambda: world.failures() == {failed})
    wait_until(lambda: world.reported() == {"degraded"})
    changes = world.health()["transitions"]
    assert changes[-1]["to_state"] == "open"
    assert changes[-1]["worker"] in world.workers()


def test_a_worker_that_hangs_is_named(world: World) -> None:
    """It counts as missing from each order, and obeys as soon as it runs again."""
    hanging = world.workers().pop()
    os.kill(hanging, signal.SIGSTOP)
    try:
        wait_until(lambda: world.health()["silent_workers"] == [hanging])
        response = world.order("force-open", reason="maintenance")
        assert response.status_code == 504
        assert response.json()["silent_workers"] == [hanging]
    finally:
        os.kill(hanging, signal.SIGCONT)

    wait_until(lambda: world.statuses() == {503: 40})
