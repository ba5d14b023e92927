"""Start the fleet together with the application."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from example_service.core.settings import Settings
from example_service.infra.fleet.directory_store import DirectoryStore
from example_service.infra.fleet.member import Member
from example_service.infra.fleet.process_breakers import ProcessBreakers
from example_service.infra.fleet.store import Store
from example_service.infra.resilience import CircuitBreakerRegistry, circuit_breaker_registry
from example_service.infra.workers.reports import Reports
from example_service.infra.workers.shared_directory import shared_directory


@dataclass(frozen=True, slots=True)
class Fleet:
    """The connections of this process to the other processes of the service.

    Attributes:
        member: Shares circuits with the other processes; None if this is the only process.
        reports: The status reports of the workers on this machine.
    """

    member: Member | None
    reports: Reports


@asynccontextmanager
async def open_fleet(
    settings: Settings, registry: CircuitBreakerRegistry = circuit_breaker_registry
) -> AsyncIterator[Fleet]:
    """Join the fleet until the end of the block. A process without a store is not a member.

    The service also starts while the store is unavailable.
    """
    directory = shared_directory()
    reports = Reports(directory, pid=os.getpid())
    store = _store(settings, directory)
    if store is None:
        yield Fleet(None, reports)
        return
    breakers = ProcessBreakers(registry)
    name = f"{socket.gethostname()}-{os.getpid()}"
    member = Member(store, breakers, name=name, quorum=settings.redis.quorum)
    with breakers.reporting_to(member):
        async with member.running():
            yield Fleet(member, reports)


def _store(settings: Settings, directory: Path | None) -> Store | None:
    if settings.redis.url is not None:
        # This needs the extra `redis`, so it is imported only if a URL is set.
        from example_service.infra.fleet.redis_store import redis_store  # noqa: PLC0415

        return redis_store(settings.redis)
    return None if directory is None else DirectoryStore(directory)
