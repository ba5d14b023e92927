"""How the service stops while requests wait for the payment provider."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.payments.integration.held_provider import HeldProvider
from tests.service_process import (
    DEADLINE_SECONDS,
    Service,
    is_ready,
    refuses_connections,
    wait_until,
)

pytestmark = pytest.mark.integration

RATES = "/api/v1/exchange-rates/EUR"


@pytest.fixture
def in_background() -> Iterator[ThreadPoolExecutor]:
    """Threads for requests that take their time."""
    with ThreadPoolExecutor() as executor:
        yield executor


def held_request(
    service: Service, provider: HeldProvider, executor: ThreadPoolExecutor
) -> Future[httpx.Response]:
    """A request that has reached the provider and stays there."""
    url = service.url
    request = executor.submit(httpx.get, url + RATES, timeout=DEADLINE_SECONDS)
    assert provider.asked.wait(DEADLINE_SECONDS)
    return request


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_development_needs_nothing_and_ends_with_status_0(
    number: signal.Signals, start: Callable[..., Service]
) -> None:
    """Without settings, the sandbox is the provider, and it ends with the service."""
    service = start(LOG__FORMAT="console")
    url = service.url

    rate = httpx.get(url + RATES)
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    sandboxes = children.read_text().split() if children.exists() else []
    service.process.send_signal(number)

    assert rate.json()["currency"] == "EUR"
    assert service.status() == 0
    assert f"curl -X PUT {url}/sandbox/mode" in service.text
    assert service.errors == ""
    for sandbox in sandboxes:
        assert not Path(f"/proc/{sandbox}").exists()


def test_a_signal_drains_the_service(
    start: Callable[..., Service], provider: HeldProvider, in_background: ThreadPoolExecutor
) -> None:
    """After the drain, the socket closes, and the request in flight is answered."""
    service = start(
        PAYMENT_PROVIDER__BASE_URL=provider.url,
        PAYMENT_PROVIDER__TIMEOUT_SECONDS="60",
        LIMITS__REQUEST_TIMEOUT_SECONDS="60",
        SHUTDOWN__DRAIN_SECONDS="1",
    )
    request = held_request(service, provider, in_background)
    url = service.url
    assert is_ready(url)

    service.process.send_signal(signal.SIGTERM)

    wait_until(lambda: refuses_connections(url))
    assert not request.done()
    provider.may_answer.set()
    assert request.result(DEADLINE_SECONDS).status_code == 200
    assert service.status() == 0


def test_the_second_signal_stops_at_once(
    start: Callable[..., Service], provider: HeldProvider, in_background: ThreadPoolExecutor
) -> None:
    """Until then, readiness is 503, and the service answers; requests in flight are cut off."""
    service = start(
        PAYMENT_PROVIDER__BASE_URL=provider.url,
        PAYMENT_PROVIDER__TIMEOUT_SECONDS="60",
        SHUTDOWN__DRAIN_SECONDS="3600",
    )
    request = held_request(service, provider, in_background)
    url = service.url

    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_ready(url))
    alive = httpx.get(f"{url}/health/live")
    assert (alive.status_code, alive.headers["Connection"]) == (200, "close")
    # The same signal within this time would count as a repetition of the first.
    service.process.send_signal(signal.SIGINT)

    assert service.status() == 128 + signal.SIGINT
    with pytest.raises(httpx.TransportError):
        request.result(DEADLINE_SECONDS)


def test_the_grace_time_has_an_end(
    start: Callable[..., Service], provider: HeldProvider, in_background: ThreadPoolExecutor
) -> None:
    """A request that takes too long is cut off, and the service still stops cleanly."""
    service = start(
        PAYMENT_PROVIDER__BASE_URL=provider.url,
        PAYMENT_PROVIDER__TIMEOUT_SECONDS="60",
        SHUTDOWN__GRACE_SECONDS="0",
    )
    request = held_request(service, provider, in_background)

    service.process.send_signal(signal.SIGTERM)

    assert service.status() == 0
    assert not provider.may_answer.is_set()
    assert request.result(DEADLINE_SECONDS).is_server_error


def test_an_interrupt_from_the_terminal_lets_workers_finish(
    start: Callable[..., Service], provider: HeldProvider, in_background: ThreadPoolExecutor
) -> None:
    """Ctrl+C reaches every process of the group, but workers only follow their parent."""
    service = start(
        WORKERS="2",
        PAYMENT_PROVIDER__BASE_URL=provider.url,
        PAYMENT_PROVIDER__TIMEOUT_SECONDS="60",
        LIMITS__REQUEST_TIMEOUT_SECONDS="60",
    )
    request = held_request(service, provider, in_background)
    url = service.url

    os.killpg(service.process.pid, signal.SIGINT)

    wait_until(lambda: refuses_connections(url))
    provider.may_answer.set()
    assert request.result(DEADLINE_SECONDS).status_code == 200
    assert service.status() == 0
    assert service.errors == ""


def test_the_second_signal_kills_the_workers(
    start: Callable[..., Service], provider: HeldProvider, in_background: ThreadPoolExecutor
) -> None:
    """The exit status says that the stop was not clean."""
    service = start(
        WORKERS="2",
        PAYMENT_PROVIDER__BASE_URL=provider.url,
        PAYMENT_PROVIDER__TIMEOUT_SECONDS="60",
        SHUTDOWN__DRAIN_SECONDS="3600",
    )
    request = held_request(service, provider, in_background)
    url = service.url

    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_ready(url))
    service.process.send_signal(signal.SIGINT)

    assert service.status() == 1
    assert refuses_connections(url)
    with pytest.raises(httpx.TransportError):
        request.result(DEADLINE_SECONDS)
