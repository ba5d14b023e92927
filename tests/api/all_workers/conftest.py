"""Fixtures that make this process one of several workers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from example_service.api.breakers import all_workers
from example_service.api.breakers.all_workers import AllWorkers
from example_service.core.settings import Settings
from example_service.core.settings.model import AdminSettings
from example_service.infra.fleet.directory_store import DirectoryStore
from example_service.infra.fleet.fleet import Fleet
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.resilience import (
    circuit_breaker_registry,
)
from example_service.infra.resilience.testing import FakeClock
from example_service.infra.workers.reports import Reports
from example_service.main import create_app
from tests.api.all_workers.other_workers import (
    DEADLINE_SECONDS,
    THIRD,
    THIS,
    TOKEN,
    OtherWorker,
    connected,
)
from tests.application import Serve


@pytest.fixture
def fleet_directory(tmp_path: Path) -> Path:
    """The directory that the workers share."""
    return tmp_path


@pytest.fixture
async def other(fleet_directory: Path) -> AsyncIterator[OtherWorker]:
    """Another worker."""
    async with OtherWorker(fleet_directory).running() as other:
        yield other


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for a worker that will carry out an order, and briefly for one that never will."""
    seconds = DEADLINE_SECONDS if "other" in request.fixturenames else 0.1
    if "silent" in request.fixturenames:
        # Every order takes that long, and the other worker has to be faster.
        seconds = 2.0
    monkeypatch.setattr(all_workers, "ANSWER_SECONDS", seconds)


@pytest.fixture
def silent(fleet_directory: Path) -> None:
    """A third worker, whose last report is too old."""
    Reports(fleet_directory, pid=THIRD, clock=FakeClock(-100.0)).write('{"breakers": {}}')


@pytest.fixture
async def fleet(fleet_directory: Path) -> AsyncIterator[Fleet]:
    """The fleet that this process has joined."""
    breakers = ProcessBreakers(circuit_breaker_registry)
    member = Member(DirectoryStore(fleet_directory), breakers, name="w1")
    with breakers.reporting_to(member):
        async with member.running():
            await connected(member)
            yield Fleet(member, Reports(fleet_directory, pid=THIS))


@pytest.fixture
def workers(fleet: Fleet) -> AllWorkers:
    """All workers, as this process sees them."""
    return AllWorkers(fleet)


@pytest.fixture
async def app() -> FastAPI:
    """The service as one of several workers."""
    admin = AdminSettings(token=SecretStr(TOKEN))
    return create_app(Settings(environment="test", admin=admin))


@pytest.fixture
async def client(app: FastAPI, serve: Serve, workers: AllWorkers) -> httpx.AsyncClient:
    """A client of this worker."""
    client = await serve(app)
    app.state.services = replace(app.state.services, all_workers=workers)
    return client
