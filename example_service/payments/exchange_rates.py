"""Exchange rates, read from the payment provider for each request."""

from typing import Annotated

from fastapi import APIRouter, Path

from example_service.api.problems.openapi import problem_responses
from example_service.payments.dependencies import Provider
from example_service.payments.models import ExchangeRate
from example_service.payments.problems import PROVIDER_CALL_PROBLEMS, UNKNOWN_CURRENCY

router = APIRouter(prefix="/api/v1/exchange-rates", tags=["payments"])


@router.get(
    "/{currency}",
    operation_id="read_exchange_rate",
    summary="Exchange rate of a currency",
    responses=problem_responses(UNKNOWN_CURRENCY, *PROVIDER_CALL_PROBLEMS),
)
async def read_exchange_rate(
    currency: Annotated[str, Path(pattern="^[A-Z]{3}$", examples=["EUR"])], provider: Provider
) -> ExchangeRate:
    """Return the current price of one unit of the provider's base currency in another currency.

    There is no fallback: if the provider fails, this request fails. While the circuit is open, it
    fails immediately, with `Retry-After`.
    """
    return await provider.exchange_rate(currency)
