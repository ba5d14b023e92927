"""Dependencies for the routes of payments, as type aliases for their signatures."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from example_service.api.dependencies import get_payment_breaker
from example_service.api.problems.answers import ProblemError
from example_service.infra.resilience import CircuitBreaker
from example_service.payments.problems import PROVIDER_NOT_CONFIGURED
from example_service.payments.provider import PaymentProvider
from example_service.payments.service import PaymentService


@dataclass(frozen=True, slots=True)
class PaymentParts:
    """The objects that the domain creates when the application starts.

    Attributes:
        provider: The payment provider, guarded by its breaker.
        service: Accepts payments and works on them.
    """

    provider: PaymentProvider
    service: PaymentService


def _parts(request: Request) -> PaymentParts:
    parts = cast("PaymentParts | None", request.app.state.payments)
    if parts is None:
        raise ProblemError(PROVIDER_NOT_CONFIGURED)
    return parts


async def get_payment_provider(request: Request) -> PaymentProvider:
    """Return the payment provider.

    Raises:
        ProblemError: If the settings have no URL of the provider.
    """
    return _parts(request).provider


async def get_payment_service(request: Request) -> PaymentService:
    """Return the service that accepts payments and works on them.

    Raises:
        ProblemError: If the settings have no URL of the provider.
    """
    return _parts(request).service


PaymentBreaker = Annotated[CircuitBreaker, Depends(get_payment_breaker)]
Provider = Annotated[PaymentProvider, Depends(get_payment_provider)]
Payments = Annotated[PaymentService, Depends(get_payment_service)]
