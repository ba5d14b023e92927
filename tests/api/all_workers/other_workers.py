"""A second worker, whose reports a test decides, and requests to this one."""

# ruff: noqa: ARG002 - A stand-in takes the arguments of the part that it replaces.
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from example_service.infra.fleet.directory_store import DirectoryStore
from example_service.infra.fleet.gate import LeaseGate
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.participant import FollowClose, FollowOpen, FollowOrder, Rules
from example_service.infra.resilience import (
    CircuitBreaker,
)
from example_service.infra.workers.reports import Reports

TOKEN = "a-token-of-more-than-sixteen"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
THIS, OTHER, THIRD = 1, 2, 3
MAINTENANCE = {"reason": "maintenance"}
DEADLINE_SECONDS = 60.0


class OtherBreakers:
    """The breakers of another worker, which only record the orders they get."""

    def __init__(self) -> None:
        self.obeyed: list[tuple[str, str | None]] = []

    def rules(self, name: str) -> Rules:
        """See `Breakers`."""
        return Rules(60.0, 2, 3, 60.0)

    def open(self, name: str, instruction: FollowOpen) -> None:
        """See `Breakers`."""

    def close(self, name: str, instruction: FollowClose) -> None:
        """See `Breakers`."""

    def apply_order(self, name: str, instruction: FollowOrder) -> None:
        """See `Breakers`."""
        self.obeyed.append((name, instruction.mode))

    def attach(self, name: str, gate: LeaseGate) -> None:
        """See `Breakers`."""

    def detach(self, name: str) -> None:
        """See `Breakers`."""


class OtherWorker:
    """Another worker, whose reports a test decides.

    Args:
        directory: The directory that the workers share.
        pid: The process ID of the worker.

    Attributes:
        breakers: The metrics of its breakers, by name.
        transitions: The state changes that it reports.
        orders: The orders that it reports.
        obeyed: The orders that it has carried out.
    """

    def __init__(self, directory: Path, pid: int = OTHER) -> None:
        self.breakers: dict[str, Any] = {}
        self.transitions: list[dict[str, Any]] = []
        self.orders: list[list[Any]] = []
        self._breakers = OtherBreakers()
        self.obeyed = self._breakers.obeyed
        self.member = Member(DirectoryStore(directory), self._breakers, name=f"w{pid}")
        self._reports = Reports(directory, pid=pid)

    def report(self) -> None:
        """Write a report now."""
        body = {
            "breakers": self.breakers,
            "transitions": self.transitions,
            "orders": self.orders,
            "version": self.member.version,
        }
        self._reports.write(json.dumps(body))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["OtherWorker"]:
        """Take part and keep reporting until the end of the block."""

        async def report_regularly() -> None:
            while True:
                self.report()
                await asyncio.sleep(0.02)

        async with self.member.running():
            await connected(self.member)
            self.report()
            task = asyncio.create_task(report_regularly())
            yield self
            task.cancel()


async def connected(member: Member) -> None:
    """Wait until a member is connected."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not member.is_connected:  # noqa: ASYNC110 - There is no event to wait for.
            await asyncio.sleep(0.01)


def metrics(state: str, **different: Any) -> dict[str, Any]:
    """The metrics of a breaker in another worker."""
    return {**CircuitBreaker("blank", registry=None).get_metrics(), "state": state, **different}


def transition(at: str, worker: int) -> dict[str, Any]:
    """A state change in another worker."""
    return {
        "at": at,
        "worker": worker,
        "breaker_name": "shop",
        "from_state": "closed",
        "to_state": "open",
        "reason": "1 failure in a row",
        "wait_seconds": 60.0,
        "failure_count": 1,
        "rejections": 0,
        "caused_by": "rules",
    }


async def health(client: httpx.AsyncClient) -> dict[str, Any]:
    """The response of the breakers' health endpoint."""
    response = await client.get("/health/circuit-breakers")
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


async def force_open(client: httpx.AsyncClient, name: str) -> httpx.Response:
    """Ask the API to force a breaker open."""
    path = f"/admin/circuit-breakers/{name}/force-open"
    return await client.post(path, headers=AUTHORISED, json=MAINTENANCE)
