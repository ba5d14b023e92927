"""Administration of circuit breakers. The routes only exist if `ADMIN__TOKEN` is set."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeAlias

import structlog
from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from example_service.api.breakers.all_workers import AllWorkers
from example_service.api.breakers.orders import carry_out
from example_service.api.breakers.views import BreakerMetrics, StandingMode, Time
from example_service.api.dependencies import Workers, require_admin_token
from example_service.api.problems import catalogue
from example_service.api.problems.answers import RETRY_SOON, ProblemError
from example_service.api.problems.openapi import problem_responses
from example_service.api.request.strict_route import StrictRoute
from example_service.infra.resilience import CircuitState, Mode, NamedMode
from example_service.infra.resilience.validation import check_reason

SHORTEST_MODE_SECONDS: Final = 0.001
MAX_MODE_SECONDS: Final = 7 * 86_400
"""The limit is 7 days. An operator should end a longer mode by hand."""


class _AdministratorsRoute(StrictRoute):
    """Checks the token before the request is parsed, which is too early for a dependency."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_for_administrators(request: Request) -> Response:
            await require_admin_token(request)
            return await handle(request)

        return handle_for_administrators


router = APIRouter(
    prefix="/admin",
    tags=["administration"],
    # Only for the OpenAPI document. The route class checks the token.
    dependencies=[Depends(HTTPBearer(scheme_name="administration", auto_error=False))],
    route_class=_AdministratorsRoute,
    responses=problem_responses(catalogue.UNAUTHORIZED),
)

_REFUSALS: Final = problem_responses(catalogue.UNKNOWN_CIRCUIT_BREAKER, catalogue.INCOMPLETE_ORDER)

_log = structlog.get_logger("example_service.admin")


def _checked(reason: str) -> str:
    # The pattern may use a newer version of Unicode, in which more characters are printable.
    check_reason("reason", reason)
    return reason


# Visible text with plain spaces only, so that logs show it unchanged.
_Reason: TypeAlias = Annotated[
    str,
    Field(min_length=1, max_length=200, pattern=r"^ *[^\p{C}\p{Z}]([^\p{C}\p{Z}]| )*$"),
    AfterValidator(_checked),
]


class ResetOrder(BaseModel):
    """The optional body of a reset."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: _Reason | None = Field(
        None,
        description="The reason, for the log.",
        examples=["The provider has confirmed that it is back."],
    )


class ModeOrder(BaseModel):
    """The body that sets a mode."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: _Reason = Field(
        description="The reason, for the log and the health response. While the circuit is forced "
        "open, refused clients also receive it.",
        examples=["The provider is migrating its database until noon."],
    )
    seconds: float | None = Field(
        None,
        ge=SHORTEST_MODE_SECONDS,
        le=MAX_MODE_SECONDS,
        allow_inf_nan=False,
        description="Seconds until the mode ends; null to keep it until a reset.",
        examples=[1800],
    )


class OrderReport(BaseModel):
    """The result of an order."""

    breaker: str
    state: CircuitState | None = Field(description="The worst state among the workers afterwards.")
    mode: Mode | None = Field(description="The mode that was set; null after a reset.")
    reason: str | None
    until: Time | None = Field(description="When the mode ends; null if only a reset ends it.")
    client: str | None = Field(description="Address of the client that gave the order.")
    workers: list[int] = Field(description="Process ids of the workers that carried it out.")


class BreakerList(BaseModel):
    """The breakers of all workers."""

    workers: list[int] = Field(description="Process ids of the workers.")
    silent_workers: list[int] = Field(
        description="Process ids of workers that have not reported for three seconds."
    )
    breakers: dict[str, BreakerMetrics] = Field(
        description="Metrics by name: sums over all workers, and the worst state."
    )
    modes: dict[str, StandingMode] = Field(
        description="Modes that operators have set, by name, even if no breaker has that name yet."
    )


@router.get(
    "/circuit-breakers",
    operation_id="list_circuit_breakers",
    response_model_exclude_unset=True,
)
async def list_circuit_breakers(
    request: Request, response: Response, workers: Workers
) -> BreakerList:
    """List the circuit breakers of all workers and the modes that operators have set."""
    _log.info("circuit breakers listed", client=_client(request))
    response.headers["Cache-Control"] = "no-store"
    report = await workers.report()
    return BreakerList(
        workers=report.workers,
        silent_workers=report.silent_workers,
        breakers=report.breakers,
        modes=report.modes,
    )


@router.post(
    "/circuit-breakers/{name:path}/reset",
    operation_id="reset_circuit_breaker",
    responses=_REFUSALS,
)
async def reset_circuit_breaker(
    request: Request,
    name: str,
    workers: Workers,
    order: Annotated[ResetOrder | None, Body()] = None,
) -> OrderReport:
    """Close a circuit, clear its counts and end its mode, in all workers."""
    reason = order.reason if order else None
    return await _carry_out(request, workers, name, None, reason)


@router.post(
    "/circuit-breakers/{name:path}/force-open",
    operation_id="force_circuit_breaker_open",
    responses=_REFUSALS,
)
async def force_circuit_breaker_open(
    request: Request, name: str, workers: Workers, order: ModeOrder
) -> OrderReport:
    """Refuse every call of a breaker, in all workers. The circuit is half-open after the mode."""
    return await _set_mode(request, workers, name, Mode.FORCED_OPEN, order)


@router.post(
    "/circuit-breakers/{name:path}/disable",
    operation_id="disable_circuit_breaker",
    responses=_REFUSALS,
)
async def disable_circuit_breaker(
    request: Request, name: str, workers: Workers, order: ModeOrder
) -> OrderReport:
    """Admit every call of a breaker, in all workers. Failures do not open the circuit."""
    return await _set_mode(request, workers, name, Mode.DISABLED, order)


@router.post(
    "/circuit-breakers/{name:path}/shadow",
    operation_id="shadow_circuit_breaker",
    responses=_REFUSALS,
)
async def shadow_circuit_breaker(
    request: Request, name: str, workers: Workers, order: ModeOrder
) -> OrderReport:
    """Let a breaker apply its rules without refusing calls, in all workers.

    Its metrics count the calls that it would have refused.
    """
    return await _set_mode(request, workers, name, Mode.SHADOW, order)


async def _set_mode(
    request: Request, workers: AllWorkers, name: str, mode: Mode, order: ModeOrder
) -> OrderReport:
    named = NamedMode(mode, order.reason, order.seconds)
    return await _carry_out(request, workers, name, named, order.reason)


async def _carry_out(
    request: Request, workers: AllWorkers, name: str, mode: NamedMode | None, reason: str | None
) -> OrderReport:
    """Set a mode or reset the breakers in all workers, and log the order.

    Raises:
        ProblemError: If no worker has such a breaker, or some workers may not have carried it out.
    """
    until = None
    if mode is not None and mode.seconds is not None:
        until = (datetime.now(UTC) + timedelta(seconds=mode.seconds)).isoformat()
    outcome = await carry_out(workers, name, mode, reason)
    report = OrderReport(
        breaker=name,
        state=outcome.state,
        mode=None if mode is None else mode.mode,
        reason=reason,
        until=until,
        client=_client(request),
        workers=outcome.workers,
    )
    event = "circuit breaker reset by hand" if mode is None else "circuit breaker mode set by hand"
    fields: dict[str, Any] = report.model_dump(mode="json")
    _log.warning(event, **fields, silent_workers=outcome.silent_workers)
    if outcome.silent_workers or outcome.fault is not None:
        raise ProblemError(
            catalogue.INCOMPLETE_ORDER,
            None if outcome.fault is None else f"Only one process carried it out: {outcome.fault}.",
            headers=RETRY_SOON,
            extensions={"workers": outcome.workers, "silent_workers": outcome.silent_workers},
        )
    return report


def _client(request: Request) -> str | None:
    return request.client.host if request.client else None
