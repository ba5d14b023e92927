"""The client for the payment provider, which converts its HTTP API to the terms of the domain."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final, NoReturn
from uuid import UUID

import httpx

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    FailureRate,
    circuit_breaker_registry,
)
from example_service.payments.answers import (
    Answer,
    Outcome,
    read_cancelled,
    read_charge,
    read_found,
    read_rate,
)
from example_service.payments.exceptions import (
    InvalidProviderAnswerError,
    NoFreeConnectionError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from example_service.payments.models import ExchangeRate, PaymentOrder

PAYMENT_BREAKER: Final = "payment"

_MAX_ANSWER_BYTES: Final = 65_536
_UNCOMPRESSED: Final = "identity"
"""The only content encoding that is requested and accepted. A few compressed bytes can expand to so
many that a limit on the decompressed size is checked too late."""

_OWN_FAULTS: Final = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
"""Errors that a provider cannot cause. They are bugs or wrong settings, and raised unchanged."""


def payment_breaker(
    registry: CircuitBreakerRegistry = circuit_breaker_registry,
) -> CircuitBreaker:
    """Return the breaker that guards the payment provider. It is created on first use.

    Only a `ProviderUnavailableError` is a failure. The circuit opens after five failures in a row,
    or when half of the calls of the last 30 seconds failed, because a provider that fails every
    other call never fails five times in a row. A call that takes longer than 1.5 seconds, three
    quarters of the default `PAYMENT_PROVIDER__TIMEOUT_SECONDS`, is also a failure. The settings
    `CIRCUIT_BREAKERS__PAYMENT__...` override these parameters.
    """
    return registry.get_or_create(
        PAYMENT_BREAKER,
        expected_exception=ProviderUnavailableError,
        failure_rate=FailureRate(threshold=0.5, window_seconds=30.0),
        slow_call_duration=1.5,
    )


class PaymentProvider:
    """Calls the provider through its breaker.

    While the circuit is open, every method raises `CircuitOpenError` without sending anything. Only
    a `ProviderUnavailableError` is a failure for the breaker: any valid answer, even a refusal,
    shows that the provider works.

    Args:
        client: The HTTP client. It must not follow redirects.
        base_url: The base URL of the provider's API, with or without a trailing slash.
        breaker: Guards every call.
        timeout_seconds: The time limit for a whole exchange, from waiting for a connection to the
            last byte of the answer. It also limits answers that arrive slowly but steadily.
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
        """Return the current price of one unit of the provider's base currency.

        Args:
            currency: The currency of the price, as an ISO 4217 code in capitals.

        Raises:
            UnknownCurrencyError: If the provider has no rate for the currency.
            ProviderUnavailableError: If there is no usable response.
            NoFreeConnectionError: If all connections are in use.
        """
        return await self._breaker.call(self._exchange_rate, currency)

    async def charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Charge an order. Repeated calls for the same payment charge it only once.

        Args:
            payment_id: The idempotency key. The provider charges a key at most once and repeats its
                answer to later calls.
            order: The order, which must be the same in every call for a payment.

        Raises:
            ChargeInProgressError: If another request with the key is in progress.
            ProviderUnavailableError: If there is no usable response. The provider may still have
                charged the order, or may charge it later.
            NoFreeConnectionError: If all connections are in use.
        """
        return await self._breaker.call(self._charge, payment_id, order)

    async def cancel(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Cancel a payment, so that it is never charged. If it has an outcome, return that.

        Args:
            payment_id: The idempotency key.
            order: The order of the payment.

        Raises:
            ChargeInProgressError: If another request with the key is in progress.
            ProviderUnavailableError: If there is no usable response. The payment may then still be
                charged.
            NoFreeConnectionError: If all connections are in use.
        """
        return await self._breaker.call(self._cancel, payment_id, order)

    async def find_charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome | None:
        """Look up the outcome of a payment.

        Returns:
            The outcome. None if the provider does not know the payment, which may still change
            because a charge may not have arrived yet.

        Raises:
            ProviderUnavailableError: If there is no usable response.
            NoFreeConnectionError: If all connections are in use.
        """
        return await self._breaker.call(self._find_charge, payment_id, order)

    async def _charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        answer = await self._send(
            "POST",
            "/v1/charges",
            content=order.model_dump_json(),
            headers={"Content-Type": "application/json", "Idempotency-Key": str(payment_id)},
        )
        return read_charge(answer, payment_id, order)

    async def _cancel(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        answer = await self._send("POST", f"/v1/charges/{payment_id}/cancel")
        return read_cancelled(answer, payment_id, order)

    async def _find_charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome | None:
        answer = await self._send("GET", f"/v1/charges/{payment_id}")
        return read_found(answer, payment_id, order)

    async def _exchange_rate(self, currency: str) -> ExchangeRate:
        return read_rate(await self._send("GET", f"/v1/rates/{currency}"), currency)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        content: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the answer, unless its status is 5xx or 429."""
        request = self._client.build_request(
            method,
            self._base_url + path,
            content=content,
            headers={"Accept-Encoding": _UNCOMPRESSED, **(headers or {})},
        )
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._exchange(request)
        except TimeoutError as error:
            raise ProviderTimeoutError("The response was not complete in time.") from error
        except _OWN_FAULTS:
            raise
        except (httpx.TransportError, OSError) as error:
            # httpx does not translate an `ssl.SSLError` of an established connection.
            _translate(error)
        except (httpx.InvalidURL, ValueError) as error:
            # httpx parses the address of a redirect even if it does not follow it.
            raise InvalidProviderAnswerError(
                "The response redirects to an invalid address."
            ) from error

    async def _exchange(self, request: httpx.Request) -> Answer:
        response = await self._client.send(request, stream=True)
        async with aclosing(response):
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
                raise ProviderUnavailableError(
                    f"The provider responded with status {response.status_code}."
                )
            encoding = response.headers.get("Content-Encoding", _UNCOMPRESSED)
            if encoding.lower() != _UNCOMPRESSED:
                raise InvalidProviderAnswerError("The response is compressed.")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise InvalidProviderAnswerError("The response is too large.")
            content_type = response.headers.get("Content-Type", "")
            return Answer(response.status_code, content_type, bytes(body))


def _translate(error: Exception) -> NoReturn:
    if isinstance(error, httpx.PoolTimeout):
        raise NoFreeConnectionError("All connections of this service are in use.") from error
    if isinstance(error, httpx.TimeoutException):
        raise ProviderTimeoutError("The provider did not respond in time.") from error
    raise ProviderUnavailableError("The provider cannot be reached.") from error
