"""The settings of payments, and their checks for production."""

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from example_service.core.exceptions import SettingProblem
from example_service.core.settings.addresses import is_local
from example_service.core.settings.breakers import BackoffSettings, CircuitBreakerSettings
from example_service.core.settings.group import Group
from example_service.core.settings.model import ServiceSettings
from example_service.core.settings.types import HTTPURL, Seconds, SecondsFromZero

_DEMONSTRATION_RECOVERY_TIMEOUT: Final = 30.0
_DEFAULTS: Final[Mapping[str, Mapping[str, object]]] = {
    # A demonstration must not take minutes.
    "development": {"max_retry_seconds": 10.0},
    # Nothing happens by itself.
    "test": {"worker": False, "count_seconds": 0.0},
}


class PaymentProviderSettings(Group):
    """The payment provider behind the `payment` breaker."""

    base_url: HTTPURL | None = Field(
        default=None,
        description="Base URL of the provider's API. In development `serve` starts a sandbox if "
        "this is not set; production refuses to start without a real provider.",
        examples=["https://api.payment-provider.com"],
    )
    timeout_seconds: Seconds = Field(
        default=2.0, description="Time limit in seconds for a call to the provider."
    )
    connect_timeout_seconds: Seconds = Field(
        default=1.0, description="Time limit in seconds for opening a connection to the provider."
    )


class PaymentSettings(Group):
    """How pending payments are finished in the background."""

    worker: bool = Field(
        default=True,
        description="Whether this service processes pending payments. Defaults to false in test.",
    )
    poll_seconds: Seconds = Field(
        default=1.0, description="Seconds between polls for due payments."
    )
    batch_size: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Limit of payments that one worker process handles concurrently.",
    )
    count_seconds: SecondsFromZero = Field(
        default=5.0,
        description="Seconds between counts of pending payments for the metrics; 0 for none. "
        "Defaults to 0 in test.",
    )
    claim_seconds: Seconds = Field(
        default=30.0,
        description="Seconds for which a process claims a payment. After a crash, the payment "
        "waits this long.",
    )
    retry_seconds: Seconds = Field(
        default=2.0,
        description="Seconds to wait after the first failed attempt; doubled each time.",
    )
    max_retry_seconds: Seconds = Field(
        default=300.0, description="Limit of this wait in seconds. Defaults to 10 in development."
    )
    give_up_seconds: float = Field(
        default=86_400.0,
        gt=0,
        le=31_536_000,
        allow_inf_nan=False,
        description="Age in seconds at which a payment is cancelled at the provider instead of "
        "charged. It has failed once the provider confirms that.",
    )
    provider_can_cancel: bool = Field(
        default=True,
        description="Whether the provider can promise that a key is never charged. Otherwise a "
        "payment that is given up becomes `unresolved`, for people to review.",
    )


class WithPayments(ServiceSettings):
    """The settings of the service with the groups of payments."""

    payment_provider: PaymentProviderSettings = PaymentProviderSettings()
    payments: PaymentSettings = PaymentSettings()

    @field_validator("payments")
    @classmethod
    def _defaults_of_environment(
        cls, value: PaymentSettings, info: ValidationInfo
    ) -> PaymentSettings:
        defaults = _DEFAULTS.get(info.data.get("environment", ""), {})
        return value.model_copy(
            update={name: defaults[name] for name in defaults.keys() - value.model_fields_set}
        )

    @field_validator("circuit_breakers")
    @classmethod
    def _quick_demonstration(
        cls, value: dict[str, CircuitBreakerSettings], info: ValidationInfo
    ) -> dict[str, CircuitBreakerSettings]:
        payment = value.get("payment", CircuitBreakerSettings())
        if info.data.get("environment") != "development" or payment.recovery_timeout is not None:
            return value
        # Long enough to look at an open circuit, and short enough to watch it recover, however
        # often it has been tried.
        steady = BackoffSettings(multiplier=1.0)
        backoff = steady if payment.backoff == BackoffSettings() else payment.backoff
        changes = {"recovery_timeout": _DEMONSTRATION_RECOVERY_TIMEOUT, "backoff": backoff}
        return {**value, "payment": payment.model_copy(update=changes)}

    def domain_problems(self) -> Iterator[SettingProblem]:
        """Find settings of payments that are unsafe in production."""
        yield from super().domain_problems()
        provider = self.payment_provider
        if (reason := _unfit_provider(provider.base_url)) is not None:
            name = "PAYMENT_PROVIDER__BASE_URL"
            yield SettingProblem(name, reason, f"{name}=https://api.payment-provider.com")
        if provider.timeout_seconds >= self.limits.request_timeout_seconds:
            # The request would time out first. A cancelled call is not a failure, so a hanging
            # provider would never open its circuit.
            name = "PAYMENT_PROVIDER__TIMEOUT_SECONDS"
            problem = "should be less than LIMITS__REQUEST_TIMEOUT_SECONDS"
            yield SettingProblem(name, problem, f"{name}=2.0")
        if self.payments.claim_seconds < 2 * provider.timeout_seconds:
            # Another worker could claim a payment while the first still waits for an answer.
            name = "PAYMENTS__CLAIM_SECONDS"
            problem = "should be at least twice PAYMENT_PROVIDER__TIMEOUT_SECONDS"
            yield SettingProblem(name, problem, f"{name}={2 * provider.timeout_seconds:g}")


def _unfit_provider(base_url: str | None) -> str | None:
    if base_url is None:
        return "is not set, and production has no sandbox"
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_local(host):
        return "points to this machine or link, as a sandbox would"
    if "sandbox" in re.split(r"[.-]", host):
        return "points to a sandbox, where nothing is really charged"
    if parts.scheme != "https":
        return "should begin with https://"
    return None
