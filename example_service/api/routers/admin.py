"""Administration of circuit breakers; not there at all unless `ADMIN__TOKEN` is set."""

import os
from typing import Annotated

import structlog
from fastapi import APIRouter, Body, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from example_service.api import problem_types
from example_service.api.dependencies import require_admin_token
from example_service.api.openapi import problem_responses
from example_service.api.problems import ProblemError
from example_service.infra.resilience import CircuitState, circuit_breaker_registry

router = APIRouter(
    prefix="/admin",
    tags=["administration"],
    dependencies=[Depends(require_admin_token)],
    responses=problem_responses(problem_types.UNAUTHORIZED),
)

_log = structlog.get_logger("example_service.admin")


class ResetOrder(BaseModel):
    """What may be said when a breaker is reset."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # No control characters, so that a log shows the reason as it was given.
    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            pattern=r"^\P{C}+$",
            description="Why, for the log.",
            examples=["The provider has confirmed that it is back."],
        ),
    ]


class ResetReport(BaseModel):
    """What was done."""

    breaker: str
    state: CircuitState
    worker: int = Field(description="Process id of the worker that did it; others go on as before.")


@router.post(
    "/circuit-breakers/{name:path}/reset",
    responses=problem_responses(problem_types.UNKNOWN_CIRCUIT_BREAKER),
)
async def reset_circuit_breaker(
    request: Request, name: str, order: Annotated[ResetOrder | None, Body()] = None
) -> ResetReport:
    """Close a circuit and forget its counts, in the worker that answers.

    Each worker has breakers of its own, so with several workers this reaches one of them.
    """
    breakers = [one for one in circuit_breaker_registry if one.name == name]
    if not breakers:
        raise ProblemError(problem_types.UNKNOWN_CIRCUIT_BREAKER)
    for breaker in breakers:
        await breaker.reset()
    _log.warning(
        "circuit breaker reset by hand",
        breaker=name,
        reason=order.reason if order else None,
        client=request.client.host if request.client else None,
        worker=os.getpid(),
    )
    return ResetReport(breaker=name, state=breakers[0].state, worker=os.getpid())
