"""Circuits with a history of five minutes, for tests and screenshots of the dashboard.

The circuits are real, and their metrics reach the page as usual. Only the calls are made up: five
minutes of them happen at once on the scene's own clock, and then they go on in real time.
"""

import asyncio
import contextlib
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import uvicorn
from fastapi import FastAPI

from example_service.api.dashboard.history import WINDOW_SECONDS, History
from example_service.core.settings import Settings, load_settings
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitOpenError,
    FailureRate,
    Mode,
    circuit_breaker_registry,
)
from example_service.main import create_app
from example_service.sandbox.process import sandbox_if_needed

if TYPE_CHECKING:
    from example_service.api.dashboard.feed import Feed
    from example_service.infra.resilience.rules.phases import Permit


class ProviderUnavailableError(Exception):
    """The failure of calls in a scene."""


@dataclass
class Circuit:
    """A breaker and the calls that go through it.

    Attributes:
        name: Its name.
        demand: Calls per second.
        failing: The share of calls that fail in each second; 0 is the present.
        mode: The second at which a mode is set, the mode, its reason and its duration.
        probe_seconds: The duration of a probe that ends before the present.
        parameters: The parameters of the breaker.
    """

    name: str
    demand: float
    failing: Callable[[float], float] = lambda _: 0.004
    mode: tuple[float, Mode, str, float | None] | None = None
    probe_seconds: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)


def since(second: float, share: float = 1.0, until: float = math.inf) -> Callable[[float], float]:
    """A share of failures between two seconds, and a small one before and after."""
    return lambda now: share if second <= now < until else 0.004


def outage() -> list[Circuit]:
    """One circuit in every state."""
    rate = FailureRate(threshold=0.5, window_calls=100, minimum_calls=20)
    return [
        Circuit(
            "payment", 42, since(-131), parameters={"recovery_timeout": 10, "failure_rate": rate}
        ),
        Circuit(
            "search",
            9,
            since(-100, until=-12),
            probe_seconds=20,
            parameters={"recovery_timeout": 30, "success_threshold": 5, "probe_timeout": 3600},
        ),
        Circuit(
            "warehouse",
            14,
            mode=(
                -212,
                Mode.FORCED_OPEN,
                "Stocktaking; the warehouse has wrong counts until it is over. (by on-call)",
                1884,
            ),
        ),
        Circuit(
            "email",
            4,
            since(-240, 0.16),
            mode=(
                -290,
                Mode.SHADOW,
                "Trying a threshold of 10 % before it refuses anything. (by mail-team)",
                66_690,
            ),
            parameters={"failure_rate": FailureRate(threshold=0.1, window_calls=100)},
        ),
        Circuit(
            "llm",
            2.2,
            since(-180, 0.4),
            mode=(-148, Mode.DISABLED, "False alarm: the vendor's 429 counted as a failure.", None),
        ),
        Circuit("database", 118, lambda _: 0.02, parameters={"failure_rate": rate}),
        Circuit("identity", 64),
        Circuit("fraud-check", 31, lambda _: 0.07, parameters={"failure_rate": rate}),
        Circuit("storage", 22),
        Circuit("geocoding", 6.5),
    ]


def calm() -> list[Circuit]:
    """The same circuits, all closed."""
    return [Circuit(circuit.name, circuit.demand) for circuit in outage()]


def many() -> list[Circuit]:
    """Five hundred circuits, most of them closed."""
    return [*outage(), *(Circuit(f"service-{number:03}", 0.2) for number in range(490))]


class Scene:
    """Circuits whose calls are made automatically.

    Args:
        circuits: The circuits of the scene.
    """

    def __init__(self, circuits: list[Circuit]) -> None:
        self._circuits = circuits
        self._chance = random.Random(71)  # noqa: S311 - repeatable, not secret
        self._began = time.time() - WINDOW_SECONDS
        self._second = 0.0
        self._breakers = {}
        self._probes: list[tuple[float, CircuitBreaker, Permit]] = []
        for circuit in circuits:
            breaker = CircuitBreaker(circuit.name, clock=self.now, **circuit.parameters)
            circuit_breaker_registry.register(breaker)
            self._breakers[circuit.name] = breaker

    def now(self) -> float:
        """The scene's wall clock, in seconds since 1970."""
        return self._began + self._second

    def step(self) -> None:
        """Make the calls of one second."""
        self._second += 1
        with patch("time.time", self.now):
            # A probe that is running now goes on, so the scene stays as it is during a slow test.
            at = min(self._second, WINDOW_SECONDS)
            ended = [probe for probe in self._probes if probe[0] <= at]
            for end, breaker, permit in ended:
                self._probes.remove((end, breaker, permit))
                breaker.succeed(permit)
            for circuit in self._circuits:
                self._calls(circuit, self._second - WINDOW_SECONDS)

    def _calls(self, one: Circuit, second: float) -> None:
        if one.mode is not None and one.mode[0] == second:
            circuit_breaker_registry.set_mode(one.name, *one.mode[1:])
        mean = one.demand * (1 + 0.14 * math.sin(second / 41 + len(one.name)))
        calls = int(mean + math.sqrt(mean) * (self._chance.random() - 0.5) + self._chance.random())
        for _ in range(max(0, calls)):
            self._call(one, self._breakers[one.name], one.failing(second))

    def _call(self, one: Circuit, breaker: CircuitBreaker, failing: float) -> None:
        fails = self._chance.random() < failing

        def call() -> None:
            if fails:
                raise ProviderUnavailableError

        with contextlib.suppress(ProviderUnavailableError, CircuitOpenError):
            if one.probe_seconds and not fails and breaker.is_half_open:
                self._probes.append((self._second + one.probe_seconds, breaker, breaker.acquire()))
                return
            breaker.call_sync(call)


async def play(scene: Scene, app: FastAPI) -> None:
    """Play five minutes at once."""
    services = app.state.services
    feed: Feed = services.dashboard
    feed._clock, feed._history = scene.now, History()
    for _ in range(WINDOW_SECONDS):
        scene.step()
        feed._show(await services.all_workers.report())


async def go_on(scene: Scene) -> None:
    """Play the scene in real time."""
    while True:
        await asyncio.sleep(1)
        scene.step()


async def serve(circuits: list[Circuit], settings: Settings) -> None:
    """Serve a scene on a free port until standard input ends; print the URL when it is ready."""
    scene = Scene(circuits)
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    await play(scene, app)
    playing = asyncio.create_task(go_on(scene))
    port = server.servers[0].sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)  # noqa: T201 - the parent reads it
    await asyncio.to_thread(sys.stdin.read)
    playing.cancel()
    server.should_exit = server.force_exit = True
    await serving


def main() -> None:
    """Serve the scene named on the command line."""
    circuits = {"outage": outage, "calm": calm, "many": many}[sys.argv[1]]()
    with sandbox_if_needed(load_settings()):
        asyncio.run(serve(circuits, load_settings()))


if __name__ == "__main__":
    main()
