"""The border to the payment provider: its HTTP API on one side, our words on the other."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NoReturn
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    circuit_breaker_registry,
)
from example_service.payments.exceptions import (
    InvalidProviderAnswerError,
    NoFreeConnectionError,
    OrderRefusedError,
    ProviderRefusedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownCurrencyError,
)
from example_service.payments.models import ExchangeRate, PaymentOrder

PAYMENT_BREAKER: Final = "payment"

_MAX_ANSWER_BYTES: Final = 65_536
_UNCOMPRESSED: Final = "identity"
"""The one encoding that is asked for and accepted: a few compressed bytes may unpack to so many
that no limit on what was unpacked comes in time."""

_OWN_FAULTS: Final = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
"""Errors that no provider can cause. They are bugs or wrong settings, and pass through as such."""


_FINAL_REFUSALS: Final = frozenset((httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY))
"""Statuses that speak of the order itself. Others (401, 403, 404, 409) may speak of our key, our
address or the moment, and an order is worth another attempt once that is mended."""


@dataclass(frozen=True, slots=True)
class Charged:
    """The provider has charged the order, now or at an earlier attempt.

    Attributes:
        charge_id: Its id of the charge.
    """

    charge_id: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider has declined the order. It is well, and says so: a success for the circuit."""


class _Charge(BaseModel):
    """A charge as the provider tells of it; members that are not used here may be there."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(min_length=1, max_length=255)]
    idempotency_key: str
    amount: int
    currency: str
    customer_id: str
    status: Literal["succeeded"]


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

    async def charge(self, payment_id: UUID, order: PaymentOrder) -> Charged | Declined:
        """Have an order charged, once, however often this is called for the same payment.

        Args:
            payment_id: The idempotency key: the provider charges one key once, and answers later
                calls as it did the first.
            order: What is charged; always the same for one payment.

        Raises:
            OrderRefusedError: If the provider will never accept the order.
            ProviderRefusedError: If it refuses for a reason that may pass.
            ProviderUnavailableError: If no usable answer comes. It may have charged nevertheless.
            NoFreeConnectionError: If this service is too busy to ask.
        """
        return await self._breaker.call(self._charge, payment_id, order)

    async def find_charge(self, payment_id: UUID, order: PaymentOrder) -> Charged | None:
        """Ask whether a payment has been charged.

        Returns:
            The charge; None where the provider says that there is none.

        Raises:
            ProviderRefusedError: If the provider does not want to tell.
            ProviderUnavailableError: If no usable answer comes.
            NoFreeConnectionError: If this service is too busy to ask.
        """
        return await self._breaker.call(self._find_charge, payment_id, order)

    async def _charge(self, payment_id: UUID, order: PaymentOrder) -> Charged | Declined:
        status_code, body = await self._send(
            "POST",
            "/v1/charges",
            content=order.model_dump_json(),
            headers={"Content-Type": "application/json", "Idempotency-Key": str(payment_id)},
        )
        if status_code == httpx.codes.PAYMENT_REQUIRED:
            return Declined()
        if status_code in _FINAL_REFUSALS:
            raise OrderRefusedError(status_code)
        _raise_unless(status_code, httpx.codes.OK, httpx.codes.CREATED)
        return _charged(body, payment_id, order)

    async def _find_charge(self, payment_id: UUID, order: PaymentOrder) -> Charged | None:
        status_code, body = await self._send("GET", f"/v1/charges/{payment_id}")
        if status_code == httpx.codes.NOT_FOUND:
            return None
        _raise_unless(status_code, httpx.codes.OK)
        return _charged(body, payment_id, order)

    async def _exchange_rate(self, currency: str) -> ExchangeRate:
        status_code, body = await self._send("GET", f"/v1/rates/{currency}")
        if status_code == httpx.codes.NOT_FOUND:
            raise UnknownCurrencyError(status_code)
        _raise_unless(status_code, httpx.codes.OK)
        try:
            rate = ExchangeRate.model_validate_json(body)
        except ValidationError as error:
            raise InvalidProviderAnswerError("The answer is not an exchange rate.") from error
        if rate.currency != currency:
            raise InvalidProviderAnswerError("The rate is for another currency.")
        return rate

    async def _send(
        self,
        method: str,
        path: str,
        *,
        content: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Return the status and the body, unless the status says that the provider is down."""
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

    async def _exchange(self, request: httpx.Request) -> tuple[int, bytes]:
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
            return response.status_code, bytes(body)


def _translate(error: httpx.TransportError) -> NoReturn:
    if isinstance(error, httpx.PoolTimeout):
        raise NoFreeConnectionError("All connections of this service are in use.") from error
    if isinstance(error, httpx.TimeoutException):
        raise ProviderTimeoutError("The provider did not answer in time.") from error
    raise ProviderUnavailableError("The provider cannot be reached.") from error


def _raise_unless(status_code: int, *accepted: int) -> None:
    if status_code in accepted:
        return
    if httpx.codes.is_client_error(status_code):
        raise ProviderRefusedError(status_code)
    raise InvalidProviderAnswerError(f"Status {status_code} is not in the contract.")


def _charged(body: bytes, payment_id: UUID, order: PaymentOrder) -> Charged:
    """Read a charge, and see that it is the one that was meant."""
    try:
        charge = _Charge.model_validate_json(body)
    except ValidationError as error:
        raise InvalidProviderAnswerError("The answer is not a charge.") from error
    expected = {"idempotency_key": str(payment_id), **order.model_dump()}
    if charge.model_dump(include=set(expected)) != expected:
        raise InvalidProviderAnswerError("The charge is for something else.")
    return Charged(charge.id)
