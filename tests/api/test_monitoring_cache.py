"""Monitoring responses are computed once a second, however many clients ask."""

import asyncio
import threading

import httpx
import pytest

from example_service.core.settings import Settings
from example_service.core.settings.model import LimitSettings
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.main import create_app
from tests.application import Serve


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A client of a service that caches responses for the whole test."""
    limits = LimitSettings(monitoring_cache_seconds=3600.0)
    return await serve(create_app(Settings(environment="test", limits=limits)))


@pytest.mark.parametrize("path", ["/metrics", "/health/circuit-breakers"])
async def test_responses_are_shared(path: str, client: httpx.AsyncClient) -> None:
    """A breaker created meanwhile appears only after the second is over."""
    first = await client.get(path)
    _new = CircuitBreaker("appeared-since")

    others = await asyncio.gather(*(client.get(f"{path}?{number}") for number in range(5)))

    assert {other.text for other in others} == {first.text}
    assert "appeared-since" not in first.text


@pytest.mark.parametrize(
    ("path", "look"), [("/metrics", "snapshots"), ("/health/circuit-breakers", "get_all_metrics")]
)
async def test_monitoring_of_many_breakers_does_not_block_requests(
    path: str, look: str, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is built in a thread, outside the event loop."""
    threads = []
    original = getattr(circuit_breaker_registry, look)

    def note() -> object:
        threads.append(threading.current_thread())
        return original()

    monkeypatch.setattr(circuit_breaker_registry, look, note)

    assert (await client.get(path)).status_code == 200

    assert threads
    assert threading.main_thread() not in threads
