"""The composition root: here, and only here, the parts of the service are put together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import httpx
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware

from example_service import __version__
from example_service.api.breakers.all_workers import AllWorkers
from example_service.api.problems.answers import install_problem_handlers
from example_service.api.problems.openapi import document_problems
from example_service.api.problems.payments import install_payment_problem_handlers
from example_service.api.request.access_log import AccessLog
from example_service.api.request.allowed_hosts import AllowedHostsMiddleware
from example_service.api.request.middleware import RequestMiddleware
from example_service.api.routers import (
    admin,
    dashboard,
    exchange_rates,
    health,
    metrics,
    payments,
    problems,
    sandbox,
)
from example_service.core.logging import configure_logging
from example_service.core.settings import Settings, load_settings
from example_service.infra.database.database import database_breaker, open_database
from example_service.infra.http.client import create_http_client
from example_service.infra.metrics import pool_metrics, request_metrics, shared_metrics
from example_service.infra.readiness import Check, Readiness, critical_breakers
from example_service.infra.resilience import circuit_breaker_registry
from example_service.infra.workers.peers import shared_directory, this_process
from example_service.infra.workers.standing_modes import StandingModes
from example_service.migrations import schema_fault
from example_service.payments.provider import PaymentProvider, payment_breaker
from example_service.payments.service import PaymentService
from example_service.payments.worker import PaymentWorker

_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_CORS_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "X-Request-ID",
    "traceparent",
)
_CORS_RESPONSE_HEADERS = ("Retry-After", "X-Request-ID", "traceparent")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: What it is built with; read from the environment if left out.

    Raises:
        SettingsError: If the settings in the environment cannot be used.
    """
    if settings is None:
        settings = load_settings()
    configure_logging(settings)
    circuit_breaker_registry.configure(
        {name: breaker.parameters() for name, breaker in settings.circuit_breakers.items()}
    )
    # Made now, so that monitoring shows them before the first call.
    database_breaker()
    payment_breaker()
    app = FastAPI(
        title="Example service",
        version=__version__,
        lifespan=_lifespan,
        middleware=_middleware(settings),
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.started = False
    app.state.readiness = Readiness(_readiness_checks(app, settings))
    install_problem_handlers(app)
    install_payment_problem_handlers(app)
    document_problems(app)
    for router in _routers(settings):
        app.include_router(router)
    return app


def _middleware(settings: Settings) -> list[Middleware]:
    """The layers around the routes, outermost first."""
    cors = partial(
        CORSMiddleware,
        allow_origins=settings.http.cors_origins,
        allow_methods=_CORS_METHODS,
        allow_headers=_CORS_REQUEST_HEADERS,
        expose_headers=_CORS_RESPONSE_HEADERS,
    )
    has_cors = bool(settings.http.cors_origins)
    layers = [
        Middleware(
            RequestMiddleware,
            limits=settings.limits,
            metrics=request_metrics,
            access_log=AccessLog(settings),
            cors=cors if has_cors else None,
        )
    ]
    if "*" not in settings.http.allowed_hosts:
        hosts = settings.http.allowed_hosts
        layers.append(Middleware(AllowedHostsMiddleware, allowed_hosts=hosts, www_redirect=False))
    if has_cors:
        layers.append(Middleware(cors))
    return layers


def _routers(settings: Settings) -> list[APIRouter]:
    routers = [
        payments.router,
        exchange_rates.router,
        health.router,
        metrics.router,
        dashboard.router,
        problems.router,
    ]
    if settings.admin.token is not None:
        routers.append(admin.router)
    if settings.environment == "development":
        routers.append(sandbox.router)
    return routers


def _readiness_checks(app: FastAPI, settings: Settings) -> list[Check]:
    critical = frozenset(name for name, one in settings.circuit_breakers.items() if one.critical)
    return [
        Check("database", lambda: schema_fault(app.state.database)),
        critical_breakers(circuit_breaker_registry, critical),
    ]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the application holds while it runs, and close it at the end, last opened first."""
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(create_http_client(settings))
        database = await stack.enter_async_context(open_database(settings))
        pool_metrics.watch(database.engine.pool)
        await stack.enter_async_context(shared_metrics())
        workers = AllWorkers(this_process(), StandingModes(shared_directory()))
        await stack.enter_async_context(workers.running())
        provider = _payment_provider(settings, client)
        service = PaymentService(database, provider, settings.payments) if provider else None
        app.state.all_workers = workers
        app.state.http_client = client
        app.state.database = database
        app.state.payment_provider = provider
        app.state.payment_service = service
        if service is not None and settings.payments.worker:
            worker = PaymentWorker(service, payment_breaker(), settings.payments)
            await stack.enter_async_context(worker.running())
        app.state.started = True
        yield


def _payment_provider(settings: Settings, client: httpx.AsyncClient) -> PaymentProvider | None:
    """The provider, where the service has been told of one."""
    provider = settings.payment_provider
    if provider.base_url is None:
        return None
    return PaymentProvider(
        client, provider.base_url, payment_breaker(), timeout_seconds=provider.timeout_seconds
    )


def __getattr__(name: str) -> FastAPI:
    """Build `app` when a server asks for it; importing this module alone reads no settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = built = create_app()
    return built
