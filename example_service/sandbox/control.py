"""The control API, which works in every mode of the provider."""

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from example_service.sandbox.charges import Ledger
from example_service.sandbox.modes import ModeChange
from example_service.sandbox.switch import ProviderPort, Switch
from example_service.sandbox.validation import invalid_input


def create_control(ledger: Ledger, switch: Switch, port: ProviderPort) -> Starlette:
    """Build the control API of one provider."""

    async def show_mode(_request: Request) -> Response:
        return JSONResponse(switch.report.model_dump())

    async def set_mode(request: Request) -> Response:
        try:
            change = ModeChange.model_validate_json(await request.body())
        except ValidationError as error:
            return invalid_input(error)
        report = await switch.turn(change, port)
        return JSONResponse(report.model_dump())

    async def show_charges(_request: Request) -> Response:
        return JSONResponse(ledger.report().model_dump())

    async def forget_charges(_request: Request) -> Response:
        switch.late_charges.drop()
        ledger.clear()
        return Response(status_code=204)

    async def deliver_late_charges(_request: Request) -> Response:
        return JSONResponse({"delivered": await switch.late_charges.deliver()})

    return Starlette(
        routes=[
            Route("/sandbox/mode", show_mode),
            Route("/sandbox/mode", set_mode, methods=["PUT"]),
            Route("/sandbox/charges", show_charges),
            Route("/sandbox/charges", forget_charges, methods=["DELETE"]),
            Route("/sandbox/late-charges/deliver", deliver_late_charges, methods=["POST"]),
        ]
    )
