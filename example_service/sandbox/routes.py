"""Routes of the service that control the sandbox, in development only.

The sandbox is another process. These routes pass requests on to its control address.
"""

from typing import Annotated, Final

import httpx
from fastapi import APIRouter, Depends

from example_service.api.dependencies import AppSettings, HTTPClient
from example_service.api.problems.answers import ProblemError
from example_service.api.problems.catalogue import ProblemType, define
from example_service.api.problems.openapi import problem_responses
from example_service.api.request.strict_route import StrictRoute
from example_service.sandbox.charges import ChargesReport
from example_service.sandbox.modes import ModeChange, ModeReport

NO_SANDBOX: Final = define(
    ProblemType(
        slug="no-sandbox",
        status=404,
        title="No sandbox",
        meaning="This service runs without a sandbox.",
        cause="It was not started with `serve`, or `PAYMENT_PROVIDER__BASE_URL` is set.",
        remedy="Start it with `example-service serve`, without `PAYMENT_PROVIDER__BASE_URL`.",
    )
)
SANDBOX_UNAVAILABLE: Final = define(
    ProblemType(
        slug="sandbox-unavailable",
        status=503,
        title="Sandbox unavailable",
        meaning="The sandbox did not respond.",
        cause="Its process has ended or is blocked.",
        remedy="Check the log of the service, then restart the service.",
    )
)

_TIMEOUT_SECONDS: Final = 2.0

router = APIRouter(
    prefix="/sandbox",
    tags=["sandbox"],
    route_class=StrictRoute,
    responses=problem_responses(NO_SANDBOX, SANDBOX_UNAVAILABLE),
)


class SandboxControl:
    """A client for the control API of the sandbox.

    Args:
        client: The HTTP client.
        control_url: The URL of the control API, without a trailing slash.
    """

    def __init__(self, client: httpx.AsyncClient, control_url: str) -> None:
        self._client = client
        self._control_url = control_url

    async def exchange(self, method: str, path: str, body: str | None = None) -> bytes:
        """Send a request and return the body of the response.

        Raises:
            ProblemError: If the sandbox does not respond, or responds with an error.
        """
        try:
            response = await self._client.request(
                method, self._control_url + path, content=body, timeout=_TIMEOUT_SECONDS
            )
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise ProblemError(SANDBOX_UNAVAILABLE) from error
        return response.content


async def get_sandbox_control(settings: AppSettings, client: HTTPClient) -> SandboxControl:
    """Return the client for the sandbox.

    Raises:
        ProblemError: If there is no sandbox.
    """
    control_url = settings.sandbox.control_url
    if control_url is None:
        raise ProblemError(NO_SANDBOX)
    return SandboxControl(client, control_url)


_Sandbox = Annotated[SandboxControl, Depends(get_sandbox_control)]


@router.get("/mode", operation_id="read_sandbox_mode", summary="Show the mode of the sandbox")
async def read_mode(sandbox: _Sandbox) -> ModeReport:
    """Return the mode of the sandbox."""
    return ModeReport.model_validate_json(await sandbox.exchange("GET", "/sandbox/mode"))


@router.put("/mode", operation_id="set_sandbox_mode", summary="Make the sandbox fail or recover")
async def set_mode(change: ModeChange, sandbox: _Sandbox) -> ModeReport:
    """Set the mode of the sandbox. It applies from the next call."""
    answer = await sandbox.exchange("PUT", "/sandbox/mode", change.model_dump_json())
    return ModeReport.model_validate_json(answer)


@router.get(
    "/charges", operation_id="list_sandbox_charges", summary="List the charges of the sandbox"
)
async def list_charges(sandbox: _Sandbox) -> ChargesReport:
    """List the charges of the sandbox by idempotency key, oldest first."""
    return ChargesReport.model_validate_json(await sandbox.exchange("GET", "/sandbox/charges"))
