"""The metrics of the service, for Prometheus and everything that reads its formats."""

from fastapi import APIRouter, Request, Response

from example_service.api.dependencies import require_metrics_token
from example_service.api.services import services_of
from example_service.core.lifecycle import is_draining
from example_service.infra.metrics import show_readiness

router = APIRouter(tags=["monitoring"])


# Left out of the OpenAPI document: what it answers is described by Prometheus' formats, and its
# readers are no clients of the API.
@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Show all metrics as Prometheus text, or as OpenMetrics text if the request prefers it.

    Every client may read it, unless `METRICS__TOKEN` is set.
    """
    await require_metrics_token(request)
    services = services_of(request)
    # Looked at now, because where no orchestrator probes, nothing else does.
    show_readiness(is_ready=not is_draining() and not await services.readiness.faults())
    exposition = await services.expositions.get(
        accept=",".join(request.headers.getlist("accept")),
        accept_encoding=",".join(request.headers.getlist("accept-encoding")),
    )
    return Response(exposition.body, headers=exposition.headers)
