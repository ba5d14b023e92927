"""The composition root, which assembles the application."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from example_service import __version__
from example_service.api.application import Application
from example_service.api.breakers.all_workers import AllWorkers
from example_service.api.breakers.at_start import create_breakers
from example_service.api.dashboard.feed import Feed
from example_service.api.dependencies import create_requested_breakers
from example_service.api.problems.answers import install_problem_handlers, install_problems
from example_service.api.problems.database import PROBLEM_BY_DATABASE_ERROR
from example_service.api.problems.openapi import document_problems
from example_service.api.request.access_log import AccessLog
from example_service.api.request.allowed_hosts import AllowedHostsMiddleware
from example_service.api.request.baggage import BaggageMiddleware
from example_service.api.request.callers import CallersMiddleware, callers_by_key, document_keys
from example_service.api.request.cors import OriginsMiddleware
from example_service.api.request.middleware import RequestMiddleware
from example_service.api.request.proxies import ProxiesMiddleware
from example_service.api.request.server_options import ServerOptions
from example_service.api.routers import admin, api_docs, dashboard, health, metrics, problems
from example_service.api.services import Services
from example_service.api.traces import Traces, prepare_traces
from example_service.core.logging import configure_logging
from example_service.core.settings import Settings, load_settings
from example_service.domain import Domain
from example_service.infra.database.database import Database, database_breaker, open_database
from example_service.infra.fleet.fleet import open_fleet
from example_service.infra.http.client import create_http_client
from example_service.infra.metrics import (
    Expositions,
    fleet_metrics,
    pool_metrics,
    request_metrics,
    shared_metrics,
)
from example_service.infra.readiness import Check, Readiness, critical_breakers
from example_service.infra.resilience import CircuitListener, circuit_breaker_registry
from example_service.migrations import schema_fault
from example_service.payments.domain import PAYMENTS
from example_service.sandbox.domain import SANDBOX

DOMAINS: Final[tuple[Domain, ...]] = (PAYMENTS, SANDBOX)

_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_CORS_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "X-Request-ID",
    "traceparent",
    "tracestate",
)
_CORS_RESPONSE_HEADERS = (
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
    "traceparent",
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the application.

    Args:
        settings: The settings. By default, they are read from the environment.

    Raises:
        SettingsError: The settings in the environment are invalid.
    """
    if settings is None:
        settings = load_settings()
    configure_logging(settings)
    traces = prepare_traces(settings)
    domains = enabled_domains(settings)
    create_own_breakers(settings, domains, traces.listeners)
    app = Application(
        title="Example service",
        version=__version__,
        lifespan=partial(_lifespan, settings=settings, traces=traces),
        openapi_url=api_docs.OPENAPI_URL if settings.docs.enabled else None,
        docs_url=None,
        redoc_url=None,
        middleware=[*traces.middleware, *_middleware(settings)],
        redirect_slashes=False,
        telemetry=traces.telemetry,
    )
    install_problem_handlers(app)
    for errors in (PROBLEM_BY_DATABASE_ERROR, *(domain.problems for domain in domains)):
        install_problems(app, errors)
    document_problems(app)
    if settings.api.keys:
        document_keys(app)
    for router in (*(each for domain in domains for each in domain.routers), *_routers(settings)):
        app.include_router(router)
    app.router.default = ServerOptions(app.router.default)
    create_requested_breakers(app)
    return app


def create_own_breakers(
    settings: Settings, domains: Sequence[Domain], listeners: Sequence[CircuitListener] = ()
) -> None:
    """Create the breakers of the database and of the domains.

    Args:
        settings: The settings of breakers by name. They also apply to breakers created later.
        domains: The enabled domains.
        listeners: The listeners of all breakers.

    Raises:
        SettingsError: The settings of a breaker contradict its parameters in the code.
    """
    circuit_breaker_registry.configure(
        {name: breaker.parameters() for name, breaker in settings.circuit_breakers.items()},
        listeners=listeners,
    )
    create_breakers((database_breaker, *(each for domain in domains for each in domain.breakers)))


def enabled_domains(settings: Settings) -> list[Domain]:
    """The domains that are enabled with these settings."""
    return [domain for domain in DOMAINS if domain.is_enabled(settings)]


def _middleware(settings: Settings) -> list[Middleware]:
    """The middleware, outermost first."""
    cors = partial(
        OriginsMiddleware,
        allow_origins=settings.http.cors_origins,
        allow_methods=_CORS_METHODS,
        allow_headers=(
            (*_CORS_REQUEST_HEADERS, "baggage")
            if settings.http.propagate_baggage
            else _CORS_REQUEST_HEADERS
        ),
        expose_headers=_CORS_RESPONSE_HEADERS,
    )
    has_cors = bool(settings.http.cors_origins)
    http = settings.http
    layers = []
    if http.trusted_proxies or http.root_path or ":" in settings.host:
        layers.append(
            Middleware(ProxiesMiddleware, trusted=http.trusted_proxies, root_path=http.root_path)
        )
    layers.append(
        Middleware(
            RequestMiddleware,
            limits=settings.limits,
            metrics=request_metrics,
            access_log=AccessLog(settings),
            cors=cors if has_cors else None,
        )
    )
    if "*" not in settings.http.allowed_hosts:
        hosts = settings.http.allowed_hosts
        layers.append(Middleware(AllowedHostsMiddleware, allowed_hosts=hosts, www_redirect=False))
    if has_cors:
        layers.append(Middleware(cors))
    if http.propagate_baggage:
        layers.append(Middleware(BaggageMiddleware))
    if settings.api.keys:
        find_caller = callers_by_key(settings.api.keys)
        layers.append(Middleware(CallersMiddleware, find_caller=find_caller))
    return layers


def _routers(settings: Settings) -> list[APIRouter]:
    routers = [health.router, metrics.router, problems.router]
    if settings.docs.enabled:
        routers.append(api_docs.router)
    if settings.dashboard.enabled:
        routers.append(dashboard.router)
    if settings.admin.token is not None:
        routers.append(admin.router)
    return routers


def _readiness_checks(database: Database, settings: Settings) -> list[Check]:
    critical = frozenset(name for name, one in settings.circuit_breakers.items() if one.critical)
    return [
        Check("database", lambda: schema_fault(database)),
        critical_breakers(circuit_breaker_registry, critical),
    ]


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings, traces: Traces) -> AsyncIterator[None]:
    """Open the resources of the application, and close them in reverse order when it ends."""
    # Called again, because routes may have been added since the application was created.
    create_requested_breakers(app)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(create_http_client())
        database = await stack.enter_async_context(open_database(settings))
        pool_metrics.watch(database.engine.pool)
        await stack.enter_async_context(traces.running())
        stack.enter_context(traces.statements(database.engine))
        await stack.enter_async_context(shared_metrics())
        fleet = await stack.enter_async_context(open_fleet(settings))
        fleet_metrics.watch(fleet.member)
        workers = await stack.enter_async_context(AllWorkers(fleet).reporting())
        readiness = Readiness(_readiness_checks(database, settings))
        expositions = Expositions(settings.limits.monitoring_cache_seconds)
        feed = Feed(settings, workers)
        if settings.dashboard.enabled:
            await stack.enter_async_context(feed.running())
        services = Services(
            settings=settings,
            http_client=client,
            database=database,
            all_workers=workers,
            readiness=readiness,
            expositions=expositions,
            dashboard=feed,
        )
        for domain in enabled_domains(settings):
            await stack.enter_async_context(domain.lifespan(app, services))
        app.state.services = services
        yield


def __getattr__(name: str) -> FastAPI:
    """Create `app` on first access, so that importing this module does not read the settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = built = create_app()
    return built
