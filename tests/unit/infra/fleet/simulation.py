"""Simulate processes, breakers, a dependency and a failing store in virtual time."""

import asyncio
import contextlib
import functools
import inspect
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Concatenate, ParamSpec

from example_service.infra.fleet.member import Member
from tests.unit.infra.fleet.simulated_breakers import Breakers
from tests.unit.infra.fleet.simulated_store import Server, SimulatedStore, now
from tests.virtual_loop import run_virtually

P = ParamSpec("P")

NAME = "payment"


class Dependency:
    """The dependency that the breakers guard."""

    def __init__(self) -> None:
        self.is_down = False
        self.probing = asyncio.Event()
        self.running_probes = self.most_probes = self.probes = self.calls = 0

    async def is_failing(self, *, is_probe: bool = False) -> bool:
        """Handle a call, which takes a fifth of a second; return whether it fails."""
        self.calls += 1
        self.probes += is_probe
        self.running_probes += is_probe
        if is_probe:
            self.probing.set()
        self.most_probes = max(self.most_probes, self.running_probes)
        await asyncio.sleep(0.2)
        self.running_probes -= is_probe
        return self.is_down


class Process:
    """One process of the service, with traffic."""

    def __init__(self, world: "World", number: int) -> None:
        self.store = SimulatedStore(world.server)
        self.breakers = Breakers(now)
        self.member = Member(
            self.store, self.breakers, name=f"p{number}", quorum=world.quorum, clock=now
        )
        self.breakers.member = self.member
        self._dependency = world.dependency
        self.is_idle = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to serve."""
        self._task = asyncio.create_task(self._serve())

    async def kill(self) -> None:
        """End without leaving the fleet."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        async with self.member.running(), asyncio.TaskGroup() as calls:
            while True:
                await asyncio.sleep(0.1)
                if not self.is_idle:
                    calls.create_task(self._call())

    async def _call(self) -> None:
        breaker = self.breakers[NAME]
        if breaker.admits(now()):
            period, is_probe = breaker.period, breaker.state == "half_open"
            failed = await self._dependency.is_failing(is_probe=is_probe)
            self.breakers.ended(NAME, period, failed=failed)


class World:
    """All processes, with their store and their dependency."""

    def __init__(self, processes: int, *, seed: int = 0, quorum: int = 1) -> None:
        self.quorum = quorum
        self.server = Server(random.Random(seed))  # noqa: S311
        self.dependency = Dependency()
        self.processes = [Process(self, number) for number in range(processes)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the processes serve until the end of the block."""
        for process in self.processes:
            process.start()
        await asyncio.sleep(0.5)
        yield
        for process in self.processes:
            await process.kill()

    async def leave_traffic_to_the_first(self) -> None:
        """Stop the calls of the other processes, and wait until none of them is in flight."""
        for process in self.processes[1:]:
            process.is_idle = True
        await asyncio.sleep(0.5)

    def states(self) -> list[str]:
        """The states of all breakers."""
        return [process.breakers[NAME].state for process in self.processes]


def in_world(
    processes: int, *, quorum: int = 1
) -> Callable[[Callable[Concatenate[World, P], Coroutine[None, None, None]]], Callable[P, None]]:
    """Run a test in virtual time, with a world in which so many processes serve."""

    def decorated(
        test: Callable[Concatenate[World, P], Coroutine[None, None, None]],
    ) -> Callable[P, None]:
        async def scenario(*args: P.args, **kwargs: P.kwargs) -> None:
            world = World(processes, quorum=quorum)
            async with world.running():
                await test(world, *args, **kwargs)

        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            run_virtually(scenario(*args, **kwargs))

        # The world is not a fixture, so pytest must not look for it.
        _, *parameters = inspect.signature(test).parameters.values()
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorated
