"""The problems of payments, and the errors that they describe."""

from typing import Final

from example_service.api.problems.answers import RETRY_SOON, Problem, ProblemsByError
from example_service.api.problems.catalogue import CIRCUIT_BREAKER_OPEN, ProblemType, define
from example_service.payments.exceptions import (
    IdempotencyKeyReusedError,
    InvalidProviderAnswerError,
    NoFreeConnectionError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownCurrencyError,
)

PROVIDER_UNAVAILABLE: Final = define(
    ProblemType(
        slug="provider-unavailable",
        status=502,
        title="Payment provider unavailable",
        meaning="The payment provider gave no usable response.",
        cause="It could not be reached, responded with an error, or something else responded "
        "in its place.",
        remedy="Repeat the request after a few seconds. If it keeps failing, the circuit opens.",
    )
)
PROVIDER_TIMEOUT: Final = define(
    ProblemType(
        slug="provider-timeout",
        status=504,
        title="Payment provider timed out",
        meaning="The payment provider did not respond in time.",
        cause="No complete response arrived within `PAYMENT_PROVIDER__TIMEOUT_SECONDS`.",
        remedy="Repeat the request after a few seconds. If it keeps failing, the circuit opens.",
    )
)
PROVIDER_BUSY: Final = define(
    ProblemType(
        slug="provider-connections-busy",
        status=503,
        title="No free connection to the payment provider",
        meaning="The payment provider was not called, because all connections to it were in use.",
        cause="There are more concurrent calls than this service has connections.",
        remedy="Repeat the request after the seconds in `Retry-After`.",
    )
)
PROVIDER_NOT_CONFIGURED: Final = define(
    ProblemType(
        slug="provider-not-configured",
        status=503,
        title="No payment provider",
        meaning="This service has no payment provider.",
        cause="`PAYMENT_PROVIDER__BASE_URL` is not set, and no sandbox was started.",
        remedy="Start the service with `example-service serve`, or set the variable.",
    )
)
UNKNOWN_CURRENCY: Final = define(
    ProblemType(
        slug="unknown-currency",
        status=404,
        title="Unknown currency",
        meaning="The payment provider has no exchange rate for this currency.",
        cause="The code is not in ISO 4217, or the provider does not support the currency.",
        remedy="Request another currency.",
    )
)

UNKNOWN_PAYMENT: Final = define(
    ProblemType(
        slug="unknown-payment",
        status=404,
        title="Unknown payment",
        meaning="The caller has no payment with this id.",
        cause="The id is misspelt, or belongs to another environment or another caller.",
        remedy="Compare it with the `id` in the response that accepted the payment.",
    )
)
PAYMENT_DECLINED: Final = define(
    ProblemType(
        slug="payment-declined",
        status=402,
        title="Payment declined",
        meaning="The payment provider has declined the payment; nothing was charged.",
        cause="The customer's payment method does not cover the amount, or is no longer valid.",
        remedy="Ask the customer for another payment method, and use a new `Idempotency-Key`.",
    )
)
PAYMENT_FAILED: Final = define(
    ProblemType(
        slug="payment-failed",
        status=502,
        title="Payment failed",
        meaning="The payment could not be made. Nothing was or will be charged.",
        cause="The provider does not accept such a payment, or it was cancelled because it could "
        "not be charged for too long. `failure_reason` says which.",
        remedy="If `failure_reason` is `expired` or `cancelled`, pay with a new `Idempotency-Key`; "
        "if it is `refused`, report it.",
    )
)
IDEMPOTENCY_KEY_REUSED: Final = define(
    ProblemType(
        slug="idempotency-key-reused",
        status=409,
        title="Idempotency key reused",
        meaning="The `Idempotency-Key` belongs to a payment with a different order.",
        cause="Two orders with different amounts, currencies or customers were sent with one key.",
        remedy="Use a new key for each order, and the same key only to repeat an order.",
    )
)

PROVIDER_CALL_PROBLEMS: Final = (
    PROVIDER_UNAVAILABLE,
    PROVIDER_TIMEOUT,
    PROVIDER_BUSY,
    PROVIDER_NOT_CONFIGURED,
    CIRCUIT_BREAKER_OPEN,
)
"""The problems of every operation that calls the provider."""

PROBLEM_BY_PAYMENT_ERROR: Final[ProblemsByError] = {
    UnknownCurrencyError: Problem(UNKNOWN_CURRENCY),
    ProviderTimeoutError: Problem(PROVIDER_TIMEOUT, headers=RETRY_SOON),
    # A wrong setting causes this error for every call, and the breaker does not log the reason.
    InvalidProviderAnswerError: Problem(PROVIDER_UNAVAILABLE, is_logged=True),
    ProviderUnavailableError: Problem(PROVIDER_UNAVAILABLE),
    NoFreeConnectionError: Problem(PROVIDER_BUSY, headers=RETRY_SOON, is_logged=True),
    IdempotencyKeyReusedError: Problem(IDEMPOTENCY_KEY_REUSED),
}
