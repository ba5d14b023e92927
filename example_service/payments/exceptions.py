"""What can go wrong with a payment, and between this service and its payment provider.

IdempotencyKeyReusedError           one key for two different orders

ProviderError
├── ProviderUnavailableError        no usable answer; counts against the circuit
│   ├── ProviderTimeoutError        not within the time that a call may take
│   └── InvalidProviderAnswerError  an answer that is not the provider's own
├── ChargeInProgressError           another request with this key is at work
├── UnknownCurrencyError            the provider has no rate for the currency
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
    """The answer does not fit the contract, so it may come from anything on the way there."""


class ChargeInProgressError(ProviderError):
    """The provider is at work on another request with this key, and says nothing of its outcome."""

    def __str__(self) -> str:
        return "The payment provider is at work on another request with this key."


class UnknownCurrencyError(ProviderError):
    """The provider has no exchange rate for this currency."""

    def __str__(self) -> str:
        return "The payment provider has no exchange rate for this currency."


class NoFreeConnectionError(ProviderError):
    """All connections of this service were in use for too long, so that nothing was sent."""
