"""The settings of payments: their defaults, and what production refuses."""

from typing import Any

import pytest

from example_service.core.settings import Settings, load_settings
from example_service.core.settings.breakers import BackoffSettings, CircuitBreakerSettings
from example_service.core.settings.model import LimitSettings
from example_service.payments.settings import PaymentProviderSettings, PaymentSettings


def settings_with(**changes: Any) -> Settings:
    """Settings that production accepts, with these changes."""
    fit: dict[str, Any] = {
        "environment": "production",
        "payment_provider": PaymentProviderSettings(base_url="https://api.payment-provider.com"),
    }
    return Settings(**(fit | changes))


def refused(settings: Settings) -> list[str]:
    """The variables of the domains that production refuses."""
    return [problem.variable for problem in settings.domain_problems()]


def test_a_real_provider_is_all_that_production_needs() -> None:
    """All other defaults are safe there."""
    assert refused(settings_with()) == []


@pytest.mark.parametrize(
    ("base_url", "reason"),
    [
        (None, "not set"),
        ("http://api.payment-provider.com", "https://"),
        ("https://localhost:8443", "this machine"),
        ("https://sandbox.localhost", "this machine"),
        ("http://127.0.0.1:9000", "this machine"),
        ("https://[::1]:9000", "this machine"),
        ("https://0.0.0.0", "this machine"),
        ("https://localhost.", "this machine"),
        ("https://2130706433", "this machine"),
        ("https://0x7f000001", "this machine"),
        ("https://0177.0.0.1", "this machine"),
        ("https://127.1", "this machine"),
        ("https://[::ffff:127.0.0.1]", "this machine"),
        ("https://169.254.169.254", "this machine or link"),
        ("https://[fe80::1]", "this machine or link"),
        ("https://sandbox.payment-provider.com", "sandbox"),
        ("https://api-sandbox.payment-provider.com/v1", "sandbox"),
    ],
)
def test_the_provider_must_be_real(base_url: str | None, reason: str) -> None:
    """It must be given, use encryption, and be more than a sandbox."""
    settings = settings_with(payment_provider=PaymentProviderSettings(base_url=base_url))

    (problem,) = settings.domain_problems()

    assert problem.variable == "PAYMENT_PROVIDER__BASE_URL"
    assert reason in problem.problem


@pytest.mark.parametrize(
    "base_url",
    ["https://10.1.2.3:8443", "https://api.sandboxes-and-toys.com", "https://pay.com/sandbox-team"],
)
def test_addresses_that_merely_look_similar_pass(base_url: str) -> None:
    """A private network, a similar word and a path do not make a sandbox."""
    settings = settings_with(payment_provider=PaymentProviderSettings(base_url=base_url))

    assert refused(settings) == []


def test_a_payment_is_held_for_longer_than_the_provider_may_take() -> None:
    """Otherwise another worker would call while the first still waits."""
    settings = settings_with(payments=PaymentSettings(claim_seconds=3.0))

    assert refused(settings) == ["PAYMENTS__CLAIM_SECONDS"]


def test_the_provider_must_be_given_up_before_the_request_is() -> None:
    """Otherwise a hang would look like a cancelled request and open no circuit."""
    settings = settings_with(limits=LimitSettings(request_timeout_seconds=2.0))

    assert refused(settings) == ["PAYMENT_PROVIDER__TIMEOUT_SECONDS"]


def test_the_payment_breaker_recovers_quickly_in_development_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait is half a minute, however many probes have failed, and nothing else changes."""
    monkeypatch.setenv("CIRCUIT_BREAKERS__PAYMENT__FAILURE_THRESHOLD", "3")

    payment = load_settings().circuit_breakers["payment"]

    assert payment.parameters() == {
        "failure_threshold": 3,
        "recovery_timeout": 30.0,
        "backoff": {"multiplier": 1.0},
    }
    for environment in ("test", "production"):
        elsewhere = Settings(environment=environment).circuit_breakers["payment"]
        assert elsewhere.parameters() == {"failure_threshold": 3}


def test_a_given_wait_stays_in_development() -> None:
    """The short timeout and its steadiness are only defaults."""
    timeout = CircuitBreakerSettings(recovery_timeout=30.0)
    backoff = CircuitBreakerSettings(backoff=BackoffSettings(jitter=0.2))

    assert Settings(circuit_breakers={"payment": timeout}).circuit_breakers == {"payment": timeout}
    payment = Settings(circuit_breakers={"payment": backoff}).circuit_breakers["payment"]
    assert payment.backoff == BackoffSettings(jitter=0.2)


def test_a_payment_waits_for_seconds_only_in_development() -> None:
    """In a demonstration, it succeeds soon after the provider has recovered."""
    given = PaymentSettings(max_retry_seconds=60.0)

    assert Settings().payments.max_retry_seconds == 10.0
    assert Settings(payments=given).payments == given
    for environment in ("test", "production"):
        assert Settings(environment=environment).payments.max_retry_seconds == 300.0


def test_background_work_is_off_in_test_by_default() -> None:
    """Background work must not change what a test checks."""
    given = PaymentSettings(worker=True, count_seconds=1.0)

    assert Settings().payments.worker
    assert Settings().payments.count_seconds == 5.0
    assert not Settings(environment="test").payments.worker
    assert Settings(environment="test").payments.count_seconds == 0.0
    assert Settings(environment="test", payments=given).payments == given
