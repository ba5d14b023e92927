"""What routes may ask for, as aliases for their signatures.

Every dependency is a coroutine function, as FastAPI runs plain ones in a thread, which costs a
request sixty microseconds. Solving one of these costs eight, so none is built upon another.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar, cast

import httpx
from fastapi import Depends, Request

from example_service.api.breakers.all_workers import AllWorkers
from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.api.problems.payments import PROVIDER_NOT_CONFIGURED
from example_service.core.settings import Settings
from example_service.infra.database.database import Database
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry
from example_service.payments.provider import PaymentProvider, payment_breaker
from example_service.payments.service import PaymentService

T = TypeVar("T")


def circuit_breaker(name: str, **defaults: Any) -> Callable[[], Awaitable[CircuitBreaker]]:
    """Make a dependency that hands out the breaker of a name.

    `Annotated[CircuitBreaker, Depends(circuit_breaker("payment"))]` in the signature of a route
    gives it the one breaker of that name in this process. It is made when it is first asked for.

    Args:
        name: Name of the breaker; `CIRCUIT_BREAKERS__<NAME>__…` sets its parameters.
        defaults: Parameters of `CircuitBreaker` where the settings give none.
    """

    async def get_circuit_breaker() -> CircuitBreaker:
        return circuit_breaker_registry.get_or_create(name, **defaults)

    return get_circuit_breaker


async def get_payment_breaker() -> CircuitBreaker:
    """Hand out the breaker in front of the payment provider."""
    return payment_breaker()


async def get_settings(request: Request) -> Settings:
    """Hand out the settings that the application was made with."""
    return cast("Settings", request.app.state.settings)


async def get_http_client(request: Request) -> httpx.AsyncClient:
    """Hand out the client for outgoing calls; the application closes it when it ends."""
    return cast("httpx.AsyncClient", request.app.state.http_client)


async def get_database(request: Request) -> Database:
    """Hand out the database; the application closes it when it ends."""
    return cast("Database", request.app.state.database)


async def get_all_workers(request: Request) -> AllWorkers:
    """Hand out what reaches the breakers of all workers."""
    return cast("AllWorkers", request.app.state.all_workers)


async def get_payment_provider(request: Request) -> PaymentProvider:
    """Hand out the payment provider.

    Raises:
        ProblemError: If nobody has told the service where the provider is.
    """
    return _configured(cast("PaymentProvider | None", request.app.state.payment_provider))


async def get_payment_service(request: Request) -> PaymentService:
    """Hand out what accepts payments and works on them.

    Raises:
        ProblemError: If nobody has told the service where the provider is.
    """
    return _configured(cast("PaymentService | None", request.app.state.payment_service))


def _configured(part: T | None) -> T:
    if part is None:
        raise ProblemError(PROVIDER_NOT_CONFIGURED)
    return part


async def bears_admin_token(request: Request) -> bool:
    """Tell whether the request carries the token of `ADMIN__TOKEN`; False where there is none."""
    token = cast("Settings", request.app.state.settings).admin.token
    credentials = request.headers.getlist("authorization")
    if token is None or len(credentials) != 1:
        return False
    scheme, _, given = credentials[0].partition(" ")
    # Header values are decoded as Latin-1, so this gives the bytes back that were sent.
    sent, expected = given.strip().encode("latin-1"), token.get_secret_value().encode()
    return hmac.compare_digest(sent, expected) and scheme.lower() == "bearer"


async def require_admin_token(request: Request) -> None:
    """Refuse requests without the token of the administration.

    Raises:
        ProblemError: If the token is missing or wrong.
    """
    if not await bears_admin_token(request):
        raise ProblemError(
            catalogue.UNAUTHORIZED, headers={"WWW-Authenticate": 'Bearer realm="admin"'}
        )


AppSettings = Annotated[Settings, Depends(get_settings)]
HTTPClient = Annotated[httpx.AsyncClient, Depends(get_http_client)]
IsAdministrator = Annotated[bool, Depends(bears_admin_token)]
OpenDatabase = Annotated[Database, Depends(get_database)]
PaymentBreaker = Annotated[CircuitBreaker, Depends(get_payment_breaker)]
Provider = Annotated[PaymentProvider, Depends(get_payment_provider)]
Payments = Annotated[PaymentService, Depends(get_payment_service)]
Workers = Annotated[AllWorkers, Depends(get_all_workers)]
