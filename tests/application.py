"""The whole application, with a client that calls it without a socket."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import httpx
import pytest
from fastapi import FastAPI

from example_service.infra.resilience import circuit_breaker_registry

Serve: TypeAlias = Callable[[FastAPI], Awaitable[httpx.AsyncClient]]
LogLines: TypeAlias = Callable[[], list[dict[str, Any]]]


def _drop_breakers() -> None:
    for breaker in list(circuit_breaker_registry):
        if breaker.name in circuit_breaker_registry:
            circuit_breaker_registry.unregister(breaker.name)


@pytest.fixture
def no_breakers_of_other_tests() -> Iterator[None]:
    """Let each application create its breakers with its own settings."""
    _drop_breakers()
    yield
    circuit_breaker_registry.configure({})
    _drop_breakers()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an application and return a client for it; both end with the test."""
    async with AsyncExitStack() as stack:

        async def start(app: FastAPI) -> httpx.AsyncClient:
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, client=("192.0.2.1", 50000))
            return await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://service.test")
            )

        yield start


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> LogLines:
    """Read the JSON lines that were logged since the last call."""

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return read
