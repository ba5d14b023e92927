"""Administration of circuit breakers; not there at all unless `ADMIN__TOKEN` is set.

Each worker has breakers of its own, so with several workers an order reaches one of them.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeAlias

import structlog
from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from example_service.api import problem_types
from example_service.api.breaker_reports import BreakerMetrics, Time, breaker_metrics
from example_service.api.dependencies import require_admin_token
from example_service.api.openapi import problem_responses
from example_service.api.problems import ProblemError
from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitState,
    circuit_breaker_registry,
)
from example_service.infra.resilience.circuit_state import Mode

LONGEST_MODE_SECONDS: Final = 7 * 86_400
"""A mode that is to hold for longer is better ended by hand."""

router = APIRouter(
    prefix="/admin",
    tags=["administration"],
    # The first only documents what the second demands.
    dependencies=[
        Depends(HTTPBearer(scheme_name="administration", auto_error=False)),
        Depends(require_admin_token),
    ],
    responses=problem_responses(problem_types.UNAUTHORIZED),
)

_UNKNOWN_NAME: Final = problem_responses(problem_types.UNKNOWN_CIRCUIT_BREAKER)

_log = structlog.get_logger("example_service.admin")

# Something that can be seen and no control characters, so that a log shows it as it was given.
_Reason: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^\P{C}*[^\p{C}\p{Z}]\P{C}*$")
]


class ResetOrder(BaseModel):
    """What may be said when a breaker is reset."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: _Reason = Field(
        description="Why, for the log.", examples=["The provider has confirmed that it is back."]
    )


class ModeOrder(BaseModel):
    """What has to be said when a mode is set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: _Reason = Field(
        description="Why, for the log, the health answer and, while the circuit is forced open, "
        "for the clients that are refused.",
        examples=["The provider migrates its database until noon."],
    )
    seconds: float | None = Field(
        None,
        gt=0,
        le=LONGEST_MODE_SECONDS,
        allow_inf_nan=False,
        description="How long the mode holds; null for until a reset.",
        examples=[1800],
    )


class OrderReport(BaseModel):
    """What was done."""

    breaker: str
    state: CircuitState
    mode: Mode | None = Field(description="The mode that holds from now on.")
    reason: str | None
    until: Time | None = Field(description="When the mode ends; null for not before a reset.")
    client: str | None = Field(description="Address of who asked for it.")
    worker: int = Field(description="Process id of the worker that did it; others go on as before.")


class BreakerList(BaseModel):
    """The breakers of one worker."""

    worker: int = Field(description="Process id of the worker that answers.")
    breakers: dict[str, BreakerMetrics] = Field(description="What each shows, by name.")


@router.get(
    "/circuit-breakers",
    operation_id="list_circuit_breakers",
    response_model_exclude_unset=True,
)
async def list_circuit_breakers(request: Request, response: Response) -> BreakerList:
    """Show every circuit breaker of the worker that answers, with the mode that holds."""
    _log.info("circuit breakers listed", client=_client(request), worker=os.getpid())
    response.headers["Cache-Control"] = "no-store"
    return BreakerList(worker=os.getpid(), breakers=breaker_metrics())


@router.post(
    "/circuit-breakers/{name:path}/reset",
    operation_id="reset_circuit_breaker",
    responses=_UNKNOWN_NAME,
)
async def reset_circuit_breaker(
    request: Request, name: str, order: Annotated[ResetOrder | None, Body()] = None
) -> OrderReport:
    """Close a circuit, forget its counts and end its mode, in the worker that answers."""
    breakers = _breakers(name)
    for breaker in breakers:
        await breaker.reset()
    return _done(
        "circuit breaker reset by hand",
        OrderReport(
            breaker=name,
            state=breakers[0].state,
            mode=None,
            reason=order.reason if order else None,
            until=None,
            client=_client(request),
            worker=os.getpid(),
        ),
    )


@router.post(
    "/circuit-breakers/{name:path}/force-open",
    operation_id="force_circuit_breaker_open",
    responses=_UNKNOWN_NAME,
)
async def force_circuit_breaker_open(request: Request, name: str, order: ModeOrder) -> OrderReport:
    """Refuse every call of a breaker, in the worker that answers; at its end, let some probe."""
    return _set_mode(request, name, order, Mode.FORCED_OPEN, CircuitBreaker.force_open)


@router.post(
    "/circuit-breakers/{name:path}/disable",
    operation_id="disable_circuit_breaker",
    responses=_UNKNOWN_NAME,
)
async def disable_circuit_breaker(request: Request, name: str, order: ModeOrder) -> OrderReport:
    """Let every call of a breaker through, in the worker that answers; nothing opens it."""
    return _set_mode(request, name, order, Mode.DISABLED, CircuitBreaker.disable)


@router.post(
    "/circuit-breakers/{name:path}/shadow",
    operation_id="shadow_circuit_breaker",
    responses=_UNKNOWN_NAME,
)
async def shadow_circuit_breaker(request: Request, name: str, order: ModeOrder) -> OrderReport:
    """Let a breaker decide and refuse nothing, in the worker that answers.

    Its metrics count what it would have refused.
    """
    return _set_mode(request, name, order, Mode.SHADOW, CircuitBreaker.shadow)


def _set_mode(
    request: Request,
    name: str,
    order: ModeOrder,
    mode: Mode,
    set_on: Callable[[CircuitBreaker, str, float | None], None],
) -> OrderReport:
    breakers = _breakers(name)
    ends_at = (
        None if order.seconds is None else datetime.now(UTC) + timedelta(seconds=order.seconds)
    )
    for breaker in breakers:
        set_on(breaker, order.reason, order.seconds)
    return _done(
        "circuit breaker mode set by hand",
        OrderReport(
            breaker=name,
            state=breakers[0].state,
            mode=mode,
            reason=order.reason,
            until=None if ends_at is None else ends_at.isoformat(),
            client=_client(request),
            worker=os.getpid(),
        ),
    )


def _breakers(name: str) -> list[CircuitBreaker]:
    """All breakers of a name: monitoring shows them as one, so they are treated as one.

    Raises:
        ProblemError: If there is none.
    """
    breakers = [one for one in circuit_breaker_registry if one.name == name]
    if not breakers:
        raise ProblemError(problem_types.UNKNOWN_CIRCUIT_BREAKER)
    return breakers


def _done(event: str, report: OrderReport) -> OrderReport:
    """Tell the log what was done."""
    fields: dict[str, Any] = report.model_dump(mode="json")
    _log.warning(event, **fields)
    return report


def _client(request: Request) -> str | None:
    return request.client.host if request.client else None
