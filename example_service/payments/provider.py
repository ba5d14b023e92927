"""The border to the payment provider: its HTTP API on one side, our words on the other."""

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
"""The one encoding that is asked for and accepted: a few compressed bytes may unpack to so many
that no limit on what was unpacked comes in time."""

_OWN_FAULTS: Final = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
"""Errors that no provider can cause. They are bugs or wrong settings, and pass through as such."""


def payment_breaker(
    registry: CircuitBreakerRegistry = circuit_breaker_registry,
) -> CircuitBreaker:
    """Return the breaker that guards the payment provider, made when it is first asked for.

    This is the one place that knows what counts as its failure. Besides failures in a row, it opens
    when half of the calls of the last 30 seconds failed: a provider that answers every other call
    never fails five times in a row. An answer that takes longer than three quarters of
    `PAYMENT_PROVIDER__TIMEOUT_SECONDS` by default counts as a failure, too. The settings
    `CIRCUIT_BREAKERS__PAYMENT__...` win over what is written here.
    """
    return registry.get_or_create(
        PAYMENT_BREAKER,
        expected_exception=ProviderUnavailableError,
        failure_rate=FailureRate(threshold=0.5, window_seconds=30.0),
        slow_call_duration=1.5,
    )


class PaymentProvider:
    """Speaks to the provider through its breaker.

    Besides the errors that each method names, every one raises `CircuitOpenError` without sending
    anything while the circuit is open. Whatever the provider says itself shows that it is alive:
    only a `ProviderUnavailableError` counts against the circuit.

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
            ProviderUnavailableError: If no usable answer comes.
            NoFreeConnectionError: If this service is too busy to ask.
        """
        return await self._breaker.call(self._exchange_rate, currency)

    async def charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Have an order charged, once, however often this is called for the same payment.

        Args:
            payment_id: The idempotency key: the provider charges one key once, and answers later
                calls as it did the first.
            order: What is charged; always the same for one payment.

        Raises:
            ChargeInProgressError: If another request with the key is at work.
            ProviderUnavailableError: If no usable answer comes. It may have charged nevertheless,
                or may do so at any later time.
            NoFreeConnectionError: If this service is too busy to ask.
        """
        return await self._breaker.call(self._charge, payment_id, order)

    async def cancel(self, payment_id: UUID, order: PaymentOrder) -> Outcome:
        """Have the provider promise that a payment is never charged, unless it was.

        Args:
            payment_id: The idempotency key.
            order: What would have been charged.

        Raises:
            ChargeInProgressError: If another request with the key is at work.
            ProviderUnavailableError: If no usable answer comes; nothing is promised then.
            NoFreeConnectionError: If this service is too busy to ask.
        """
        return await self._breaker.call(self._cancel, payment_id, order)

    async def find_charge(self, payment_id: UUID, order: PaymentOrder) -> Outcome | None:
        """Ask what has become of a payment.

        Returns:
            What the provider has decided; None where it knows nothing of the payment now. That may
            change at any later time, because a charge may still be on its way.

        Raises:
            ProviderUnavailableError: If no usable answer comes.
            NoFreeConnectionError: If this service is too busy to ask.
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
        """Return the answer, unless its status says that the provider is down."""
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
            raise ProviderTimeoutError("The answer was not complete in time.") from error
        except _OWN_FAULTS:
            raise
        except httpx.TransportError as error:
            _translate(error)

    async def _exchange(self, request: httpx.Request) -> Answer:
        response = await self._client.send(request, stream=True)
        async with aclosing(response):
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
            content_type = response.headers.get("Content-Type", "")
            return Answer(response.status_code, content_type, bytes(body))


def _translate(error: httpx.TransportError) -> NoReturn:
    if isinstance(error, httpx.PoolTimeout):
        raise NoFreeConnectionError("All connections of this service are in use.") from error
    if isinstance(error, httpx.TimeoutException):
        raise ProviderTimeoutError("The provider did not answer in time.") from error
    raise ProviderUnavailableError("The provider cannot be reached.") from error
