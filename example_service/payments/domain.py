"""Payments as a domain: everything that the rest of the service uses."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI

from example_service.api.services import Services
from example_service.core.settings import Settings
from example_service.domain import Domain, Upstream
from example_service.infra.http.client import create_http_client
from example_service.payments import exchange_rates, routes
from example_service.payments.backlog import BacklogWatch
from example_service.payments.dependencies import PaymentParts
from example_service.payments.metrics import payment_metrics
from example_service.payments.problems import PROBLEM_BY_PAYMENT_ERROR
from example_service.payments.provider import PaymentProvider, payment_breaker
from example_service.payments.service import PaymentService
from example_service.payments.worker import PaymentWorker


@asynccontextmanager
async def _lifespan(app: FastAPI, services: Services) -> AsyncIterator[None]:
    """Create the provider and the service, and work on pending payments while the service runs."""
    settings = services.settings
    app.state.payments = None
    async with AsyncExitStack() as stack:
        if settings.payments.count_seconds:
            watch = BacklogWatch(services.database, payment_metrics())
            await stack.enter_async_context(watch.running(settings.payments.count_seconds))
        if settings.payment_provider.base_url is not None:
            parts = await _open(stack, services, settings.payment_provider.base_url)
            app.state.payments = parts
            if settings.payments.worker:
                worker = PaymentWorker(parts.service, payment_breaker(), settings.payments)
                await stack.enter_async_context(worker.running())
        yield


async def _open(stack: AsyncExitStack, services: Services, base_url: str) -> PaymentParts:
    """Create a separate HTTP client, so that the provider does not share connections or limits."""
    limits = services.settings.payment_provider
    client = await stack.enter_async_context(
        create_http_client(
            timeout_seconds=limits.timeout_seconds,
            connect_timeout_seconds=limits.connect_timeout_seconds,
        )
    )
    provider = PaymentProvider(
        client, base_url, payment_breaker(), timeout_seconds=limits.timeout_seconds
    )
    service = PaymentService(services.database, provider, services.settings.payments)
    return PaymentParts(provider, service)


def _upstreams(settings: Settings) -> Sequence[Upstream]:
    in_development = settings.environment == "development"
    return (
        Upstream(
            "payment provider",
            settings.payment_provider.base_url,
            without_url="the sandbox, which `serve` starts" if in_development else "not set",
            is_needed=settings.environment == "production",
        ),
    )


PAYMENTS: Final = Domain(
    name="payments",
    routers=(routes.router, exchange_rates.router),
    problems=PROBLEM_BY_PAYMENT_ERROR,
    breakers=(payment_breaker,),
    lifespan=_lifespan,
    upstreams=_upstreams,
)
