"""Errors of payments and of calls to the payment provider.

IdempotencyKeyReusedError           one key for two different orders

ProviderError
├── ProviderUnavailableError        no usable response; the breaker counts it as a failure
│   ├── ProviderTimeoutError        no complete answer within the time limit
│   └── InvalidProviderAnswerError  an answer that does not match the contract
├── ChargeInProgressError           another request with this key is in progress
├── UnknownCurrencyError            the provider has no rate for the currency
└── NoFreeConnectionError           not sent, because all connections were in use

If the HTTP library raised an error, it is the `__cause__`. The messages contain no text from the
provider.
"""

from example_service.core.exceptions import ExampleServiceError


class IdempotencyKeyReusedError(ExampleServiceError):
    """The idempotency key belongs to a payment with another amount, currency or customer."""


class ProviderError(ExampleServiceError):
    """The base class of errors of the provider."""


class ProviderUnavailableError(ProviderError):
    """The provider could not be reached, or answered with status 5xx or 429."""


class ProviderTimeoutError(ProviderUnavailableError):
    """There was no complete answer in time. Whether the provider has acted is unknown."""


class InvalidProviderAnswerError(ProviderUnavailableError):
    """The answer does not match the contract, so it may come from an intermediary."""


class ChargeInProgressError(ProviderError):
    """The provider is processing another request with this key, so the outcome is not known yet."""

    def __str__(self) -> str:
        return "The payment provider is at work on another request with this key."


class UnknownCurrencyError(ProviderError):
    """The provider has no exchange rate for this currency."""

    def __str__(self) -> str:
        return "The payment provider has no exchange rate for this currency."


class NoFreeConnectionError(ProviderError):
    """All connections of this service were in use for too long, so nothing was sent."""
