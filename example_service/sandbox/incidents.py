"""Records incidents: calls to a sandbox that misbehaves for a while, as CSV for `replay`.

    python -m example_service.sandbox.incidents outage > docs/incidents/outage.csv

Calls start at a steady rate, whether or not earlier ones have ended, and time out after one second,
like the calls of a real service.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TextIO

import httpx

from example_service.replay.calls import FAILURE, Call, of_status
from example_service.sandbox.charges import Ledger
from example_service.sandbox.listener import Listener
from example_service.sandbox.modes import ModeChange, SandboxMode
from example_service.sandbox.provider import create_provider
from example_service.sandbox.switch import Switch

CALLS_PER_SECOND: Final = 20
TIMEOUT_SECONDS: Final = 1.0
SECONDS: Final = 15.0
"""The length of an incident, and of the healthy periods before and after it."""

_SEED: Final = 20

INCIDENTS: Final = {
    "outage": ModeChange(mode=SandboxMode.HANGING),
    "slowness": ModeChange(mode=SandboxMode.SLOW, latency_seconds=0.7),
    "flakiness": ModeChange(mode=SandboxMode.FLAKY, failure_rate=0.5, seed=_SEED),
}


@dataclass(frozen=True, slots=True)
class _Caller:
    """Calls the provider and records the outcome of each call."""

    client: httpx.AsyncClient
    calls: list[Call]

    async def call(self, since: float) -> None:
        clock = asyncio.get_running_loop().time
        begin = clock()
        try:
            response = await self.client.get("/v1/rates/EUR")
            response.json()
            outcome = of_status(response.status_code)
        except (httpx.TransportError, ValueError):
            outcome = FAILURE
        self.calls.append(Call(begin - since, clock() - begin, outcome))


async def record(incident: ModeChange, seconds: float) -> list[Call]:
    """Call the provider before, during and after an incident.

    Args:
        incident: The mode of the provider during the incident.
        seconds: The length of each of the three parts.

    Returns:
        The calls, in the order in which they started.
    """
    switch = Switch(_SEED)
    provider = Listener(create_provider(Ledger(), switch), "127.0.0.1", 0)
    await provider.open()
    healthy = ModeChange(mode=SandboxMode.HEALTHY)
    # Each call has its own connection, so that slow calls do not delay others.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=provider.url, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False
    ) as client:
        caller = _Caller(client, [])
        now = asyncio.get_running_loop().time
        begin = now()
        async with asyncio.TaskGroup() as tasks:
            for number in range(3 * round(seconds * CALLS_PER_SECOND)):
                part, first = divmod(number, round(seconds * CALLS_PER_SECOND))
                if not first:
                    await switch.turn(incident if part == 1 else healthy, provider)
                tasks.create_task(caller.call(begin))
                await asyncio.sleep(begin + (number + 1) / CALLS_PER_SECOND - now())
    await provider.close()
    return sorted(caller.calls)


def write(calls: Sequence[Call], output: TextIO) -> None:
    """Write calls as CSV, with times in seconds to three decimals."""
    output.write("time,duration,outcome\n")
    output.writelines(f"{call.time:.3f},{call.duration:.3f},{call.outcome}\n" for call in calls)


def main(arguments: Sequence[str] | None = None) -> None:
    """Record one incident and write it to standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m example_service.sandbox.incidents",
        description="Call a sandbox before, during and after an incident, and print the calls as "
        "CSV for `example-service replay`.",
    )
    parser.add_argument("incident", choices=INCIDENTS)
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help=f"length of the incident and of the healthy times around it (default {SECONDS:g})",
    )
    options = parser.parse_args(arguments)
    write(asyncio.run(record(INCIDENTS[options.incident], options.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
