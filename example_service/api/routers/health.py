"""Whether the service lives, wants requests, and reaches what it depends on.

No answer is to be cached.
"""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from example_service.api.breakers.views import BreakerMetrics, StandingMode, Transition
from example_service.api.dependencies import IsAdministrator, Workers
from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.api.problems.openapi import problem_responses
from example_service.api.services import services_of
from example_service.core.lifecycle import is_draining
from example_service.infra.resilience import CircuitState

router = APIRouter(prefix="/health", tags=["health"])

_NOT_READY = problem_responses(catalogue.NOT_READY)


class Health(BaseModel):
    """The answer of a probe."""

    status: Literal["alive", "started", "ready"]


class CircuitBreakersHealth(BaseModel):
    """How the circuit breakers of all workers are."""

    status: Literal["healthy", "degraded"] = Field(
        description="`degraded` while any circuit is not closed."
    )
    workers: list[int] = Field(
        description="Process ids of the workers; each has circuits of its own."
    )
    silent_workers: list[int] = Field(
        description="Those of further ones, which did not answer in time and are left out here."
    )
    breakers: dict[str, BreakerMetrics] = Field(
        description="What each shows, by name: the sums over all workers, and the worst state."
    )
    modes: dict[str, StandingMode] = Field(
        description="The modes that hold for names, whether or not there is a breaker now."
    )
    transitions: list[Transition] = Field(
        description="The last changes of state, at most 20, the newest first."
    )


@router.get("/live", operation_id="read_liveness")
async def live(response: Response) -> Health:
    """Tell that the process answers. Nothing outside it is looked at."""
    _forbid_caching(response)
    return Health(status="alive")


@router.get("/startup", operation_id="read_startup", responses=_NOT_READY)
async def startup(request: Request, response: Response) -> Health:
    """Tell whether the service has finished starting."""
    services_of(request)
    _forbid_caching(response)
    return Health(status="started")


@router.get("/ready", operation_id="read_readiness", responses=_NOT_READY)
async def ready(request: Request, response: Response, is_administrator: IsAdministrator) -> Health:
    """Tell whether this instance wants requests.

    The reasons why not are in the logs, and shown to callers with the token of the administration.
    """
    faults = {"shutdown": "draining"} if is_draining() else await _faults(request)
    if faults:
        raise ProblemError(
            catalogue.NOT_READY, extensions={"reasons": faults} if is_administrator else {}
        )
    _forbid_caching(response)
    return Health(status="ready")


@router.get(
    "/circuit-breakers",
    operation_id="read_circuit_breaker_health",
    response_model_exclude_unset=True,
)
async def circuit_breakers(response: Response, workers: Workers) -> CircuitBreakersHealth:
    """Show the circuit breakers of all workers, and what last happened to them.

    The status is 200 whatever they are like: a failing dependency does not make this service ill.
    """
    _forbid_caching(response)
    report = await workers.report()
    all_closed = all(one.state is CircuitState.CLOSED for one in report.breakers.values())
    return CircuitBreakersHealth(
        status="healthy" if all_closed else "degraded",
        workers=report.workers,
        silent_workers=report.silent_workers,
        breakers=report.breakers,
        modes=report.modes,
        transitions=report.transitions,
    )


async def _faults(request: Request) -> dict[str, str]:
    return dict(await services_of(request).readiness.faults())


def _forbid_caching(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"
