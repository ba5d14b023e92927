"""What can go wrong with a payment, and between this service and its payment provider.

IdempotencyKeyReusedError           one key for two different orders

ProviderError
├── ProviderUnavailableError        no usable answer; counts against the circuit
│   ├── ProviderTimeoutError        not within the time that a call may take
│   └── InvalidProviderAnswerError  an answer that breaks the contract
├── ProviderRefusedError            the provider lives, and does not accept the request
│   ├── UnknownCurrencyError        it has no rate for the currency
│   └── OrderRefusedError           it will never accept this order
└── NoFreeConnectionError           the provider was not asked: this service is too busy

The error of the HTTP library, where there was one, is the `__cause__`. The messages hold no text
from the provider.
"""

from example_service.core.exceptions import ExampleServiceError


class IdempotencyKeyReusedError(ExampleServiceError):
    """The idempotency key belongs to a payment with another amount, currency or customer."""


class ProviderError(ExampleServiceError):
    """The root of the tree above."""


class ProviderUnavailableError(ProviderError):
    """The provider could not be reached, or answered that it cannot serve (5xx, 429)."""


class ProviderTimeoutError(ProviderUnavailableError):
    """No whole answer came in time. Whether the provider has acted is unknown."""


class InvalidProviderAnswerError(ProviderUnavailableError):
    """The answer is not what the contract says: no JSON, another shape, too large, a redirect."""


class ProviderRefusedError(ProviderError):
    """The provider answered with a 4xx status: it lives, but does not accept this request.

    Attributes:
        status_code: The status it answered with.
    """

    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.status_code = status_code

    def __str__(self) -> str:
        return f"The payment provider refused the request with status {self.status_code}."


class UnknownCurrencyError(ProviderRefusedError):
    """The provider has no exchange rate for this currency."""

    def __str__(self) -> str:
        return "The payment provider has no exchange rate for this currency."


class OrderRefusedError(ProviderRefusedError):
    """The provider cannot process this order (400, 422), however often it is sent."""


class NoFreeConnectionError(ProviderError):
    """All connections of this service were in use for too long, so that nothing was sent."""
