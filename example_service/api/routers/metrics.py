"""The metrics of the service in the formats of Prometheus."""

from fastapi import APIRouter, Request, Response

from example_service.api.dependencies import require_metrics_token
from example_service.api.services import services_of
from example_service.core.lifecycle import is_draining
from example_service.infra.metrics import show_readiness

router = APIRouter(tags=["monitoring"])


# Not in the OpenAPI document, because Prometheus defines the format and API clients do not use it.
@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Show all metrics as Prometheus text, or as OpenMetrics text if the request prefers it.

    Any client may read them, unless `METRICS__TOKEN` is set.
    """
    await require_metrics_token(request)
    services = services_of(request)
    # Checked here, because without the probes of an orchestrator nothing else checks readiness.
    show_readiness(is_ready=not is_draining() and not await services.readiness.faults())
    exposition = await services.expositions.get(
        accept=",".join(request.headers.getlist("accept")),
        accept_encoding=",".join(request.headers.getlist("accept-encoding")),
    )
    return Response(exposition.body, headers=exposition.headers)
