"""Clients of other services with guarded calls, and their fallbacks while a circuit is open."""

import contextlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import respx

from example_service.core.exceptions import CircuitBreakerOpenException
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
)
from example_service.infra.resilience.testing import FakeClock
from tests.docs.users_patterns.outage import WAREHOUSE, trip

# --- a client for another service


class StockClient:
    """A client that guards all its calls with one breaker."""

    def __init__(self, http: httpx.AsyncClient, clock: FakeClock) -> None:
        """Create the breaker once for the lifetime of the client."""
        self.breaker = CircuitBreaker("stock", clock=clock)
        self._http = http

    async def units(self, article: str) -> int:
        """The units on the shelf; the guarded function is created for this call."""

        @self.breaker.protected
        async def ask() -> int:
            response = await self._http.get(f"/stock/{article}")
            return int(response.raise_for_status().json()["units"])

        return await ask()

    def health_check(self) -> dict[str, Any]:
        """The entry of this client on a health page."""
        return self.breaker.get_metrics()


async def test_client_class_guards_its_calls_and_reports_its_health(
    warehouse: respx.MockRouter, clock: FakeClock
) -> None:
    """The breaker keeps its state although each call creates a new guarded function."""
    route = warehouse.get("/stock/lamp").respond(json={"units": 3})
    async with httpx.AsyncClient(base_url=WAREHOUSE) as http:
        client = StockClient(http, clock)
        assert await client.units("lamp") == 3
        route.side_effect = httpx.ReadTimeout("late")
        for _ in range(5):
            with pytest.raises(httpx.ReadTimeout):
                await client.units("lamp")
        with pytest.raises(CircuitOpenError):
            await client.units("lamp")

    health = client.health_check()

    assert health.pop("last_failure_time") is not None
    assert health == {
        "state": "open",
        "failure_count": 5,
        "success_count": 0,
        "total_failures": 5,
        "total_successes": 1,
        "total_rejections": 1,
        "failure_rate": 5 / 6,
        "retry_after": 60.0,
        "opened_count": 1,
        "in_flight": 0,
        "reason": "5 failures in a row; last failures: ReadTimeout",
    }


class LedgerClient:
    """A client whose reads tolerate more failures than its writes."""

    def __init__(self) -> None:
        """Create a breaker for each kind of operation."""
        self.reads = CircuitBreaker("ledger_read", failure_threshold=10, recovery_timeout=30.0)
        self.writes = CircuitBreaker("ledger_write", failure_threshold=3)

    async def entry(self, number: str) -> str:
        """Look one entry up."""
        return await self.reads.call(self._read, number)

    async def add(self, cents: int) -> None:
        """Write one entry."""
        await self.writes.call(self._write, cents)

    async def _read(self, number: str) -> str:
        return f"entry {number}"

    async def _write(self, cents: int) -> None:
        raise ConnectionError(cents)


async def test_reads_go_on_while_writes_are_cut_off() -> None:
    """Two breakers in front of one dependency open independently."""
    client = LedgerClient()
    for cents in (1, 2, 3):
        with pytest.raises(ConnectionError, match=str(cents)):
            await client.add(cents)

    with pytest.raises(CircuitOpenError):
        await client.add(4)

    assert await client.entry("7") == "entry 7"
    assert (client.reads.state, client.writes.state) == (CircuitState.CLOSED, CircuitState.OPEN)


# --- what to do instead while the circuit is open


async def unused() -> str:
    """A dependency that must not be called."""
    raise AssertionError


async def from_memory(breaker: CircuitBreaker) -> str:
    """Return the last known value."""
    remembered = {"rate": "0.92"}
    try:
        return await breaker.call(unused)
    except CircuitOpenError:
        return remembered["rate"]


async def from_a_backup(breaker: CircuitBreaker) -> str:
    """Ask another service."""

    async def backup() -> str:
        return "0.93"

    try:
        return await breaker.call(unused)
    except CircuitOpenError:
        return await backup()


async def without_it(breaker: CircuitBreaker) -> str:
    """Return a reduced result."""
    greeting = "Hello"
    with contextlib.suppress(CircuitOpenError):
        greeting = f"{greeting} {await breaker.call(unused)}"
    return greeting


async def put_off(breaker: CircuitBreaker) -> str:
    """Queue the call for later."""
    queue: list[str] = []
    try:
        await breaker.call(unused)
    except CircuitOpenError:
        queue.append("charge")
    return f"{len(queue)} pending"


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [(from_memory, "0.92"), (from_a_backup, "0.93"), (without_it, "Hello"), (put_off, "1 pending")],
)
async def test_fallback_takes_over_while_the_circuit_is_open(
    fallback: Callable[[CircuitBreaker], Any], expected: str
) -> None:
    """Refusals differ from failures, so each can have its own answer."""
    breaker = CircuitBreaker("rates")
    await trip(breaker)

    assert await fallback(breaker) == expected


async def test_refusal_can_be_turned_into_an_error_of_the_service() -> None:
    """The HTTP exception includes the details of the refusal."""
    breaker = CircuitBreaker("rates", clock=FakeClock())
    await trip(breaker)

    async def rate() -> str:
        try:
            return await breaker.call(unused)
        except CircuitOpenError as refused:
            raise CircuitBreakerOpenException(
                refused.breaker_name,
                detail="Rates are not to be had now.",
                retry_after=refused.retry_after,
                state=refused.state,
            ) from refused

    with pytest.raises(CircuitBreakerOpenException) as raised:
        await rate()

    assert (raised.value.status_code, raised.value.retry_after) == (503, 60.0)
    assert str(raised.value) == "Rates are not to be had now."
