"""The sandbox as a process, and a client for tests."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

import httpx

COMMAND = (sys.executable, "-m", "example_service.sandbox")
TEN_EUROS = {"amount": 1000, "currency": "EUR", "customer_id": "alice"}
EURO = {"currency": "EUR", "base": "USD", "rate": "0.92"}
PATIENCE_SECONDS = 60.0
IMPATIENT = httpx.Timeout(PATIENCE_SECONDS, read=0.3)
"""The time limit of a call that gets no answer."""
WITHOUT_ANSWERS = ({"mode": "hanging"}, {"mode": "slow", "latency_seconds": 60})


@contextmanager
def sandbox_process(*options: str, stdin: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """Run the sandbox, and make sure that it has stopped afterwards."""
    process = subprocess.Popen(
        [*COMMAND, *options],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def addresses_of(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the line in which the sandbox prints its addresses."""
    addresses: dict[str, str] = json.loads(cast("IO[str]", process.stdout).readline())
    return addresses


@dataclass
class Sandbox:
    """Requests of a test to a running sandbox."""

    provider: str
    control: str
    client: httpx.AsyncClient

    async def turn(self, mode: str, **parameters: Any) -> None:
        """Set the mode."""
        response = await self.client.put(
            f"{self.control}/sandbox/mode", json={"mode": mode, **parameters}
        )
        assert response.status_code == 200, response.text

    async def rate(self, currency: str = "EUR", **options: Any) -> httpx.Response:
        """Request a rate."""
        return await self.client.get(f"{self.provider}/v1/rates/{currency}", **options)

    async def charge(
        self, key: str, charge: dict[str, Any] = TEN_EUROS, **options: Any
    ) -> httpx.Response:
        """Charge with a key."""
        return await self.client.post(
            f"{self.provider}/v1/charges",
            json=charge,
            headers={"Idempotency-Key": key},
            **options,
        )

    async def charges(self) -> dict[str, dict[str, Any]]:
        """The charges by key."""
        response = await self.client.get(f"{self.control}/sandbox/charges")
        return {each["idempotency_key"]: each for each in response.json()["charges"]}

    async def until_charged(self, key: str) -> None:
        """Wait until the sandbox has recorded a charge with the key."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while key not in await self.charges():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def outcome(call: Awaitable[httpx.Response]) -> tuple[object, ...]:
    """The result of a call in a form that can be compared."""
    try:
        response = await call
    except httpx.TimeoutException:
        return ("timeout",)
    except httpx.TransportError:
        return ("lost",)
    return response.status_code, response.content
