"""Dependencies for routes, as type aliases for their signatures.

Every dependency is a coroutine function, because FastAPI runs plain functions in a thread, which
costs a request 60 µs. Resolving a coroutine function costs 8 µs, so dependencies do not depend on
one another.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from example_service.api.breakers.all_workers import AllWorkers
from example_service.api.breakers.at_start import create_breakers
from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.api.request.bearer import bearer_token
from example_service.api.services import services_of
from example_service.core import context
from example_service.core.digests import digest, has_digest
from example_service.core.settings import Settings
from example_service.infra.database.database import Database
from example_service.infra.resilience import CircuitBreaker, circuit_breaker_registry

BreakerDependency: TypeAlias = Callable[[], Awaitable[CircuitBreaker]]

_creators: Final[WeakKeyDictionary[BreakerDependency, Callable[[], CircuitBreaker]]] = (
    WeakKeyDictionary()
)
"""The function that creates the breaker, for each dependency made by `circuit_breaker`."""


def circuit_breaker(name: str, **defaults: Any) -> BreakerDependency:
    """Make a dependency that returns the breaker of the given name.

    A route with `Annotated[CircuitBreaker, Depends(circuit_breaker("search"))]` in its signature
    receives this process's breaker of that name. It is created when the application
    starts, so that health, metrics and dashboard show it before its first call.

    Args:
        name: The name of the breaker. `CIRCUIT_BREAKERS__<NAME>__…` sets its parameters.
        defaults: Parameters of `CircuitBreaker`, used for those that the settings leave out.

    Example:
        ```python
        from typing import Annotated

        from fastapi import Depends, FastAPI

        from example_service.api.dependencies import circuit_breaker
        from example_service.infra.resilience import CircuitBreaker

        app = FastAPI()
        SearchBreaker = Annotated[
            CircuitBreaker, Depends(circuit_breaker("search", failure_threshold=3))
        ]


        @app.get("/search")
        async def search(words: str, breaker: SearchBreaker) -> list[str]:
            async with breaker:
                return [f"a result for {words}"]  # Call the dependency here.
        ```
    """

    def create() -> CircuitBreaker:
        return circuit_breaker_registry.get_or_create(name, **defaults)

    async def get_circuit_breaker() -> CircuitBreaker:
        return create()

    _creators[get_circuit_breaker] = create
    return get_circuit_breaker


get_payment_breaker = circuit_breaker("payment")
"""The dependency in the guide's FastAPI example. The payments domain creates the breaker."""


async def get_settings(request: Request) -> Settings:
    """Return the settings that the application was built with."""
    return services_of(request).settings


async def get_http_client(request: Request) -> httpx.AsyncClient:
    """Return the client for outgoing calls; the application closes it when it ends."""
    return services_of(request).http_client


async def get_database(request: Request) -> Database:
    """Return the database; the application closes it when it ends."""
    return services_of(request).database


async def get_all_workers(request: Request) -> AllWorkers:
    """Return the object that reports on the breakers of all workers."""
    return services_of(request).all_workers


async def has_admin_token(request: Request) -> bool:
    """Whether the request carries the token set by `ADMIN__TOKEN`. False if no token is set."""
    return _has_token(request, services_of(request).settings.admin.token)


def _has_token(request: Request, token: SecretStr | None) -> bool:
    if token is None:
        return False
    return has_digest(bearer_token(request.scope), digest(token.get_secret_value().encode()))


async def require_admin_token(request: Request) -> None:
    """Refuse requests without the admin token.

    Raises:
        ProblemError: If the token is missing or wrong.
    """
    if not await has_admin_token(request):
        raise ProblemError(
            catalogue.UNAUTHORIZED, headers={"WWW-Authenticate": 'Bearer realm="admin"'}
        )


async def require_metrics_token(request: Request) -> None:
    """Refuse requests without the token set by `METRICS__TOKEN`, if one is set.

    Raises:
        ProblemError: If the token is missing or wrong.
    """
    token = services_of(request).settings.metrics.token
    if token is not None and not _has_token(request, token):
        raise ProblemError(
            catalogue.UNAUTHORIZED, headers={"WWW-Authenticate": 'Bearer realm="metrics"'}
        )


async def get_caller() -> str | None:
    """Return the name of the caller. None if callers have no names, as without `API__KEYS`."""
    return context.caller.get()


def create_requested_breakers(app: FastAPI) -> None:
    """Create the breakers that the routes of an application request with `Depends`.

    Raises:
        ValueError, TypeError: If the parameters of a breaker are invalid.
        SettingsError: If a setting contradicts a parameter in the code.
    """
    creators = []
    found = [getattr(context, "dependant", None) for context in iter_route_contexts(app.routes)]
    while found:
        dependant = found.pop()
        if dependant is not None:
            if (create := _creators.get(dependant.call)) is not None:
                creators.append(create)
            found += dependant.dependencies
    create_breakers(creators)


AppSettings = Annotated[Settings, Depends(get_settings)]
CallerName = Annotated[str | None, Depends(get_caller)]
HTTPClient = Annotated[httpx.AsyncClient, Depends(get_http_client)]
IsAdministrator = Annotated[bool, Depends(has_admin_token)]
OpenDatabase = Annotated[Database, Depends(get_database)]
Workers = Annotated[AllWorkers, Depends(get_all_workers)]
