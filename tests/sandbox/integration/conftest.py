"""One sandbox for the tests of a file."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.sandbox.integration.sandboxes import (
    PATIENCE_SECONDS,
    Sandbox,
    addresses_of,
    sandbox_process,
)


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """One sandbox for all tests that do not stop it."""
    with sandbox_process() as process:
        yield addresses_of(process)


@pytest.fixture
async def sandbox(addresses: dict[str, str]) -> AsyncIterator[Sandbox]:
    """The sandbox, healthy and without charges."""
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
        sandbox = Sandbox(**addresses, client=client)
        await sandbox.turn("healthy")
        await client.delete(f"{sandbox.control}/sandbox/charges")
        yield sandbox
