"""The border to the payment provider: its HTTP API on one side, our words on the other."""

import asyncio
from typing import Final, NoReturn

import httpx
from pydantic import ValidationError

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.payments.exceptions import (
    InvalidProviderAnswerError,
    NoFreeConnectionError,
    ProviderRefusedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownCurrencyError,
)
from example_service.payments.models import ExchangeRate

PAYMENT_BREAKER: Final = "payment"

_MAX_ANSWER_BYTES: Final = 65_536
_UNCOMPRESSED: Final = "identity"
"""The one encoding that is asked for and accepted: a few compressed bytes may unpack to so many
that no limit on what was unpacked comes in time."""

_OWN_FAULTS: Final = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
"""Errors that no provider can cause. They are bugs or wrong settings, and pass through as such."""


def payment_breaker(
    registry: CircuitBreakerRegistry = circuit_breaker_registry,
) -> CircuitBreaker:
    """Return the breaker that guards the payment provider, made when it is first asked for.

    This is the one place that knows what counts as its failure. The settings
    `CIRCUIT_BREAKERS__PAYMENT__...` win over what is written here.
    """
    return registry.get_or_create(PAYMENT_BREAKER, expected_exception=ProviderUnavailableError)


class PaymentProvider:
    """Speaks to the provider through its breaker.

    Besides the errors that each method names, every one raises `CircuitOpenError` without sending
    anything while the circuit is open. A provider that refuses a request counts as alive: only a
    `ProviderUnavailableError` counts against the circuit.

    Args:
        client: Sends the requests; its redirects must be off.
        base_url: Where the provider's API begins, with or without a slash at its end.
        breaker: Guards every call.
        timeout_seconds: How long one whole exchange may take, from waiting for a connection to the
            last byte of the answer, however busily a provider may drip.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        breaker: CircuitBreaker,
        *,
        timeout_seconds: float = 2.0,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._breaker = breaker
        self._timeout_seconds = timeout_seconds

    async def exchange_rate(self, currency: str) -> ExchangeRate:
        """Ask how much of a currency the provider's base currency buys now.

        Args:
            currency: Three capital letters, as ISO 4217 has them.

        Raises:
            UnknownCurrencyError: If the provider has no rate for it.
            ProviderRefusedError: If the provider refuses for another reason.
            ProviderUnavailableError: If no usable answer comes.
            NoFreeConnectionError: If this service is too busy to ask.
        """
        return await self._breaker.call(self._exchange_rate, currency)

    async def _exchange_rate(self, currency: str) -> ExchangeRate:
        status_code, body = await self._get(f"/v1/rates/{currency}")
        if status_code == httpx.codes.NOT_FOUND:
            raise UnknownCurrencyError(status_code)
        if httpx.codes.is_client_error(status_code):
            raise ProviderRefusedError(status_code)
        if status_code != httpx.codes.OK:
            raise InvalidProviderAnswerError(f"Status {status_code} is not in the contract.")
        try:
            rate = ExchangeRate.model_validate_json(body)
        except ValidationError as error:
            raise InvalidProviderAnswerError("The answer is not an exchange rate.") from error
        if rate.currency != currency:
            raise InvalidProviderAnswerError("The rate is for another currency.")
        return rate

    async def _get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body, unless the status says that the provider is down."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._exchange(path)
        except TimeoutError as error:
            raise ProviderTimeoutError("The answer was not complete in time.") from error
        except _OWN_FAULTS:
            raise
        except httpx.TransportError as error:
            _translate(error)

    async def _exchange(self, path: str) -> tuple[int, bytes]:
        request = self._client.stream(
            "GET", self._base_url + path, headers={"Accept-Encoding": _UNCOMPRESSED}
        )
        async with request as response:
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
                raise ProviderUnavailableError(
                    f"The provider answered with status {response.status_code}."
                )
            if response.headers.get("Content-Encoding", _UNCOMPRESSED) != _UNCOMPRESSED:
                raise InvalidProviderAnswerError("The answer is compressed.")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise InvalidProviderAnswerError("The answer is too large.")
            return response.status_code, bytes(body)


def _translate(error: httpx.TransportError) -> NoReturn:
    if isinstance(error, httpx.PoolTimeout):
        raise NoFreeConnectionError("All connections of this service are in use.") from error
    if isinstance(error, httpx.TimeoutException):
        raise ProviderTimeoutError("The provider did not answer in time.") from error
    raise ProviderUnavailableError("The provider cannot be reached.") from error
