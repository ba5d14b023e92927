"""The payment provider: a sandbox in its own process, whose ledger outlives the service."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.chaos.ledgers import CHARGES, Charge
from tests.chaos.service import ROOT

_ANSWER_SECONDS = 30.0


class Sandbox:
    """The controls and the ledger of a running sandbox.

    Attributes:
        provider_url: The URL for charges.
        control_url: The URL of the controls.
    """

    def __init__(self, provider_url: str, control_url: str) -> None:
        self.provider_url = provider_url
        self.control_url = control_url

    async def turn(self, change: Mapping[str, object]) -> None:
        """Set the mode, with its parameters."""
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWER_SECONDS) as client:
            answer = await client.put(f"{self.control_url}/sandbox/mode", json=change)
        answer.raise_for_status()

    async def deliver_late_charges(self) -> int:
        """Deliver all late charges, and return their number."""
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWER_SECONDS) as client:
            answer = await client.post(f"{self.control_url}/sandbox/late-charges/deliver")
        return int(answer.raise_for_status().json()["delivered"])

    async def charges(self) -> list[Charge]:
        """All charges."""
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWER_SECONDS) as client:
            answer = await client.get(f"{self.control_url}/sandbox/charges")
        return CHARGES.validate_python(answer.raise_for_status().json()["charges"])


@contextmanager
def running_sandbox(seed: int, folder: Path) -> Iterator[Sandbox]:
    """Run a sandbox for the length of the block; the seed decides its faults."""
    command = [sys.executable, "-m", "example_service.sandbox", "--seed", str(seed)]
    with (
        (folder / "sandbox.log").open("wb") as errors,
        subprocess.Popen(
            command,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            addresses = json.loads(process.stdout.readline())
            yield Sandbox(addresses["provider"], addresses["control"])
        finally:
            process.terminate()
