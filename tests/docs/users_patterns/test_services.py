"""Many breakers in one service: create, monitor, inject, test and migrate to them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Protocol

import httpx
import pytest
from fastapi import Depends, FastAPI

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
)
from example_service.infra.resilience.testing import FakeClock
from tests.docs.users_patterns.outage import trip

# --- many breakers


class ResilienceConfig(Protocol):
    """The parameters that a team can set for each dependency."""

    failure_threshold: int
    recovery_timeout: float


@dataclass
class StrictConfig:
    """A config from a settings module."""

    failure_threshold: int = 2
    recovery_timeout: float = 120.0


def test_factory_creates_similar_breakers_for_every_service() -> None:
    """A team's own function fixes the common parameters and accepts the others."""

    def breaker_for(service: str, config: ResilienceConfig) -> CircuitBreaker:
        return CircuitBreaker(
            f"{service}_api",
            failure_threshold=config.failure_threshold,
            recovery_timeout=config.recovery_timeout,
            expected_exception=httpx.HTTPError,
        )

    breaker = breaker_for("orders", StrictConfig())

    assert (breaker.name, breaker.failure_threshold) == ("orders_api", 2)
    assert (breaker.recovery_timeout, breaker.success_threshold) == (120.0, 2)


async def test_registry_finds_shows_and_resets_breakers() -> None:
    """One object gives access to all existing breakers."""
    registry = CircuitBreakerRegistry()
    mail = CircuitBreaker("mail", registry=None)
    registry.register(mail)
    search = registry.get_or_create("search", failure_threshold=2)
    await trip(search)

    assert registry.get("mail") is mail
    with pytest.raises(KeyError, match="no circuit breaker named 'cache'"):
        registry.get("cache")
    states = {name: metrics["state"] for name, metrics in registry.get_all_metrics().items()}
    assert states == {"mail": "closed", "search": "open"}
    await registry.reset_all()
    assert search.is_closed


async def test_operator_resets_one_breaker_by_name() -> None:
    """A reset forgets the outage, and the next call is made at once."""
    registry = CircuitBreakerRegistry()
    breaker = registry.get_or_create("search")
    await trip(breaker)

    async def reset_by_hand(name: str) -> None:
        await registry.get(name).reset()

    await reset_by_hand("search")

    assert breaker.is_closed
    assert breaker.get_metrics()["total_failures"] == 0
    assert await breaker.call(lambda: "found") == "found"


# --- watching


async def test_monitor_alerts_about_open_circuits_and_high_failure_rates() -> None:
    """The metrics of one moment are enough to decide whether to alert."""
    breakers = [CircuitBreaker("mail"), CircuitBreaker("search"), CircuitBreaker("maps")]
    await trip(breakers[0])
    await breakers[1].call(lambda: None)
    alerts: list[tuple[str, str]] = []

    def look(breaker: CircuitBreaker, alert: Callable[[str, str], None]) -> None:
        metrics = breaker.get_metrics()
        if metrics["failure_rate"] > 0.5:
            alert(breaker.name, "fails often")
        if metrics["state"] == "open":
            alert(breaker.name, f"open after {metrics['total_failures']} failures")

    for breaker in breakers:
        look(breaker, lambda *alert: alerts.append(alert))

    assert alerts == [("mail", "fails often"), ("mail", "open after 5 failures")]


async def test_metrics_can_be_shown_and_stored() -> None:
    """Every value is a plain type, times have a zone, and the rate is between 0 and 1."""
    breaker = CircuitBreaker("mail")
    before = datetime.now(UTC)
    await trip(breaker)

    stored = json.loads(json.dumps(breaker.get_metrics()))

    assert before <= datetime.fromisoformat(stored["last_failure_time"]) <= datetime.now(UTC)
    assert f"{stored['failure_rate']:.0%}" == "100%"


# --- within FastAPI


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client for an application, without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test")


async def test_health_page_is_degraded_while_any_circuit_is_open() -> None:
    """The page can list breakers under keys of the service's choice."""
    app = FastAPI()
    mail, search = CircuitBreaker("mail"), CircuitBreaker("search")

    @app.get("/health/circuit-breakers")
    async def circuit_breakers() -> dict[str, Any]:
        shown = {"mail": mail.get_metrics(), "search": search.get_metrics()}
        healthy = all(entry["state"] == "closed" for entry in shown.values())
        return {"status": "healthy" if healthy else "degraded", "breakers": shown}

    async with client_of(app) as client:
        before = (await client.get("/health/circuit-breakers")).json()
        await trip(search)
        after = (await client.get("/health/circuit-breakers")).json()

    assert (before["status"], after["status"]) == ("healthy", "degraded")
    assert [breaker["state"] for breaker in after["breakers"].values()] == ["closed", "open"]


async def test_breaker_is_injected_into_a_route() -> None:
    """A dependency gives every request the same breaker, and tests can replace it."""
    app = FastAPI()
    breaker = CircuitBreaker("search")

    async def get_search_breaker() -> CircuitBreaker:
        return breaker

    @app.get("/search")
    async def search(guard: Annotated[CircuitBreaker, Depends(get_search_breaker)]) -> str:
        try:
            async with guard:
                return "found"
        except CircuitOpenError:
            return "later"

    async with client_of(app) as client:
        assert (await client.get("/search")).json() == "found"
        await trip(breaker)
        assert (await client.get("/search")).json() == "later"
        app.dependency_overrides[get_search_breaker] = lambda: CircuitBreaker("other")
        assert (await client.get("/search")).json() == "found"


# --- testing code that uses a breaker


async def test_state_and_time_of_failure_can_be_set() -> None:
    """Instead of waiting, a test can set a time in the past at which the circuit opened."""
    breaker = CircuitBreaker("search", recovery_timeout=1.0)
    breaker._state = CircuitState.OPEN
    assert breaker.is_open
    breaker._last_failure_time = datetime.now(UTC) - timedelta(seconds=2)

    async with breaker._lock:
        await breaker._check_state()

    assert breaker.is_half_open


async def test_reset_gives_each_test_a_fresh_breaker() -> None:
    """A module-level breaker carries no state from one test to the next."""
    breaker = CircuitBreaker("search", failure_threshold=3)
    fresh = breaker.get_metrics()
    await trip(breaker)

    await breaker.reset()

    assert breaker.get_metrics() == fresh


# --- coming from another breaker, or from other values


def test_defaults_are_the_documented_ones() -> None:
    """A breaker needs only a name."""
    breaker = CircuitBreaker("search")

    assert (breaker.failure_threshold, breaker.recovery_timeout) == (5, 60.0)
    assert (breaker.success_threshold, breaker.half_open_max_calls) == (2, 3)
    assert breaker.expected_exception is Exception


def test_name_may_be_given_as_keyword() -> None:
    """Code that names every parameter works as well."""
    assert CircuitBreaker(name="search", failure_threshold=5).name == "search"


def test_name_is_required() -> None:
    """Without a name, log lines and metrics could not be distinguished."""
    with pytest.raises(TypeError, match="name"):
        CircuitBreaker(failure_threshold=2)  # type: ignore[call-arg]


async def test_fewer_successes_close_sooner(clock: FakeClock) -> None:
    """A circuit that stays half-open for too long can be configured to need fewer successes."""

    async def probes_until_closed(success_threshold: int) -> int:
        breaker = CircuitBreaker("search", success_threshold=success_threshold, clock=clock)
        await trip(breaker)
        clock.advance(60)
        probes = 0
        while not breaker.is_closed:
            await breaker.call(lambda: None)
            probes += 1
        return probes

    assert [await probes_until_closed(wanted) for wanted in (10, 2)] == [10, 2]
