"""Liveness, readiness, and the state of every circuit breaker.

No response may be cached.
"""

import asyncio
from functools import partial
from typing import Literal
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from example_service.api.breakers.all_workers import AllWorkers, ServiceReport
from example_service.api.breakers.portions import dumped
from example_service.api.breakers.views import (
    BreakerMetrics,
    FleetStatus,
    StandingMode,
    Transition,
)
from example_service.api.dependencies import AppSettings, IsAdministrator, Workers
from example_service.api.problems import catalogue
from example_service.api.problems.answers import RETRY_SOON, ProblemError
from example_service.api.problems.openapi import problem_responses
from example_service.api.services import services_of
from example_service.core.lifecycle import is_draining
from example_service.infra.kept import Kept
from example_service.infra.resilience import CircuitState

router = APIRouter(prefix="/health", tags=["health"])

# The cached response of each application about its circuit breakers.
_kept: WeakKeyDictionary[AllWorkers, Kept[bytes]] = WeakKeyDictionary()

_NOT_READY = problem_responses(catalogue.NOT_READY)


class Health(BaseModel):
    """The response to a probe."""

    status: Literal["alive", "started", "ready"]


class CircuitBreakersHealth(BaseModel):
    """The circuit breakers of all workers."""

    status: Literal["healthy", "degraded"] = Field(
        description="`degraded` while any circuit is not closed."
    )
    workers: list[int] = Field(description="Process ids of the workers on this machine.")
    silent_workers: list[int] = Field(
        description="Process ids of workers that have not reported for three seconds."
    )
    fleet: FleetStatus | None = Field(
        None, description="Only present if the process belongs to a fleet."
    )
    breakers: dict[str, BreakerMetrics] = Field(
        description="Metrics by name: sums over all workers, and the worst state."
    )
    modes: dict[str, StandingMode] = Field(
        description="Modes that operators have set, by name, even if no breaker has that name yet."
    )
    transitions: list[Transition] = Field(
        description="The most recent changes of state, at most 20, newest first."
    )


@router.get("/live", operation_id="read_liveness")
async def live(response: Response) -> Health:
    """Report that the process is alive, without checking anything outside it."""
    _forbid_caching(response)
    return Health(status="alive")


@router.get("/startup", operation_id="read_startup", responses=_NOT_READY)
async def startup(request: Request, response: Response) -> Health:
    """Report whether the service has finished starting."""
    services_of(request)
    _forbid_caching(response)
    return Health(status="started")


@router.get("/ready", operation_id="read_readiness", responses=_NOT_READY)
async def ready(request: Request, response: Response, is_administrator: IsAdministrator) -> Health:
    """Report whether this instance can serve requests.

    If it cannot, the reasons are in the log, and in the response to clients with the admin token.
    """
    faults = {"shutdown": "draining"} if is_draining() else await _faults(request)
    if faults:
        raise ProblemError(
            catalogue.NOT_READY,
            headers=RETRY_SOON,
            extensions={"reasons": faults} if is_administrator else {},
        )
    _forbid_caching(response)
    return Health(status="ready")


@router.get(
    "/circuit-breakers",
    operation_id="read_circuit_breaker_health",
    response_model=CircuitBreakersHealth,
)
async def circuit_breakers(settings: AppSettings, workers: Workers) -> Response:
    """Show the circuit breakers of all workers and their most recent changes of state.

    The status is always 200, because this service works even if a dependency fails.
    The response is at most a second old.
    """
    if (kept := _kept.get(workers)) is None:
        seconds = settings.limits.monitoring_cache_seconds
        kept = _kept[workers] = Kept(partial(_circuit_breakers_json, workers), seconds=seconds)
    return Response(
        await kept.get(), media_type="application/json", headers={"Cache-Control": "no-store"}
    )


async def _circuit_breakers_json(workers: AllWorkers) -> bytes:
    report = await workers.report()
    # In a thread, so that a response with many breakers does not delay requests.
    return await asyncio.to_thread(_health_json, report)


def _health_json(report: ServiceReport) -> bytes:
    all_closed = all(breaker.state is CircuitState.CLOSED for breaker in report.breakers.values())
    health = CircuitBreakersHealth(
        status="healthy" if all_closed else "degraded",
        workers=report.workers,
        silent_workers=report.silent_workers,
        breakers=report.breakers,
        modes=report.modes,
        transitions=report.transitions,
    )
    if report.fleet is not None:
        health.fleet = report.fleet
    return dumped(health, "breakers").encode()


async def _faults(request: Request) -> dict[str, str]:
    return dict(await services_of(request).readiness.faults())


def _forbid_caching(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"
