"""The provider client with the sandbox: real sockets, real faults."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import IO, cast
from uuid import uuid4

import httpx
import pytest

from example_service.infra.http.client import create_http_client
from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.payments.answers import Charged, NotCharged
from example_service.payments.exceptions import (
    InvalidProviderAnswerError,
    NoFreeConnectionError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownCurrencyError,
)
from example_service.payments.models import FailureReason
from example_service.payments.provider import PaymentProvider
from tests.payments.unit.fakes import ORDER

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """The addresses of the sandbox."""
    command = [sys.executable, "-m", "example_service.sandbox", "--seed", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield json.loads(cast("IO[bytes]", process.stdout).readline())
        cast("IO[bytes]", process.stdin).close()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The service's own client with timeouts that suit a busy machine."""
    async with create_http_client(timeout_seconds=20.0, connect_timeout_seconds=20.0) as client:
        yield client


def provider_at(
    addresses: dict[str, str], client: httpx.AsyncClient, *, timeout_seconds: float = 20.0
) -> PaymentProvider:
    """A provider behind a breaker with thresholds too high to interfere."""
    breaker = CircuitBreaker(
        "patient",
        failure_threshold=10_000,
        expected_exception=ProviderUnavailableError,
        registry=None,
    )
    return PaymentProvider(client, addresses["provider"], breaker, timeout_seconds=timeout_seconds)


async def turn(client: httpx.AsyncClient, addresses: dict[str, str], mode: str) -> None:
    """Set the mode of the sandbox."""
    response = await client.put(f"{addresses['control']}/sandbox/mode", json={"mode": mode})
    response.raise_for_status()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("failing", ProviderUnavailableError),
        ("refusing", ProviderUnavailableError),
        ("hanging", ProviderTimeoutError),
        ("slow", ProviderTimeoutError),
        ("garbled", ProviderUnavailableError),
    ],
)
async def test_each_mode_is_an_outage(
    mode: str, expected: type[ProviderError], addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """Each kind of failure counts, and once the provider heals, the next call succeeds."""
    patient = provider_at(addresses, client)
    provider = patient
    if expected is ProviderTimeoutError:
        provider = provider_at(addresses, client, timeout_seconds=0.2)
    await turn(client, addresses, mode)
    for _ in range(8):
        with pytest.raises(expected):
            await provider.exchange_rate("EUR")
    await turn(client, addresses, "healthy")
    assert (await patient.exchange_rate("EUR")).currency == "EUR"


async def test_garbled_answers_differ_from_lost_ones(
    addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """A whole body without sense is an invalid response, half a body is none."""
    provider = provider_at(addresses, client)
    await turn(client, addresses, "garbled")
    met = set()
    for _ in range(16):
        with pytest.raises(ProviderUnavailableError) as caught:
            await provider.exchange_rate("EUR")
        met.add(type(caught.value))
    assert met == {ProviderUnavailableError, InvalidProviderAnswerError}


async def test_an_unknown_currency_is_not_an_outage(
    addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """The sandbox's 404 counts as a response."""
    await turn(client, addresses, "healthy")
    with pytest.raises(UnknownCurrencyError):
        await provider_at(addresses, client).exchange_rate("XXX")


async def test_the_sandbox_keeps_the_contract(
    addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """A cancelled key is never charged, a charged one never cancelled, and all is final."""
    provider, late, early = provider_at(addresses, client), uuid4(), uuid4()
    await turn(client, addresses, "healthy")

    assert await provider.find_charge(late, ORDER) is None
    cancelled = NotCharged(FailureReason.CANCELLED)
    assert await provider.cancel(late, ORDER) == cancelled
    assert await provider.charge(late, ORDER) == cancelled
    assert await provider.find_charge(late, ORDER) == cancelled

    charged = await provider.charge(early, ORDER)
    assert isinstance(charged, Charged)
    assert await provider.cancel(early, ORDER) == charged
    assert await provider.find_charge(early, ORDER) == charged

    declined = ORDER.model_copy(update={"customer_id": "declined"})
    assert await provider.charge(uuid4(), declined) == NotCharged(FailureReason.DECLINED)
    refused = ORDER.model_copy(update={"currency": "XXX"})
    assert await provider.charge(uuid4(), refused) == NotCharged(FailureReason.REFUSED)


async def test_nothing_that_answers_instead_is_believed(
    addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """A gateway's pages or JSON, and responses about other keys, do not count."""
    provider = provider_at(addresses, client)
    await turn(client, addresses, "intercepted")
    for method in (provider.charge, provider.cancel, provider.find_charge):
        for _ in range(60):
            with pytest.raises(InvalidProviderAnswerError):
                await method(uuid4(), ORDER)
    for _ in range(60):
        with pytest.raises(InvalidProviderAnswerError):
            await provider.exchange_rate("EUR")


async def test_a_charge_that_is_late_is_made_after_the_time_limit(
    addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """The provider does not know it until then."""
    # The charge must reach the provider within the limit.
    provider, payment_id = provider_at(addresses, client, timeout_seconds=1.0), uuid4()
    late = {"mode": "late", "latency_seconds": 600}
    control = f"{addresses['control']}/sandbox"
    (await client.put(f"{control}/mode", json=late)).raise_for_status()
    with pytest.raises(ProviderTimeoutError):
        await provider.charge(payment_id, ORDER)
    await turn(client, addresses, "healthy")
    patient = provider_at(addresses, client)

    assert await patient.find_charge(payment_id, ORDER) is None
    (await client.post(f"{control}/late-charges/deliver")).raise_for_status()
    assert isinstance(await patient.find_charge(payment_id, ORDER), Charged)


async def test_connections_lost_to_a_hanging_provider_are_free_again(
    addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """More calls than connections time out or are cancelled, and the pool survives."""
    provider = provider_at(addresses, client, timeout_seconds=0.5)
    await turn(client, addresses, "hanging")
    calls = [asyncio.create_task(provider.exchange_rate("EUR")) for _ in range(150)]
    await asyncio.sleep(0)
    for call in calls[::3]:
        call.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in ended} <= {
        asyncio.CancelledError,
        ProviderTimeoutError,
        NoFreeConnectionError,
    }
    await turn(client, addresses, "healthy")
    patient = provider_at(addresses, client)
    rates = await asyncio.gather(*(patient.exchange_rate("EUR") for _ in range(150)))
    assert len(rates) == 150


async def test_an_open_circuit_refuses_without_a_connection(
    addresses: dict[str, str], client: httpx.AsyncClient
) -> None:
    """With a hanging provider, callers after the fifth failure do not wait."""
    breaker = CircuitBreaker("strict", expected_exception=ProviderUnavailableError, registry=None)
    provider = PaymentProvider(client, addresses["provider"], breaker, timeout_seconds=0.1)
    await turn(client, addresses, "hanging")
    for _ in range(5):
        with pytest.raises(ProviderTimeoutError):
            await provider.exchange_rate("EUR")
    with pytest.raises(CircuitOpenError):
        await provider.exchange_rate("EUR")
