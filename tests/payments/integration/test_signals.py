"""Signals to the whole process group, and workers that are blocked or stopped."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from example_service.infra.workers.shared_directory import locked
from tests.payments.integration.held_provider import HeldProvider
from tests.service_process import DEADLINE_SECONDS, Service, kill, wait_until

pytestmark = pytest.mark.integration

RATES = "/api/v1/exchange-rates/EUR"
GRACE_SECONDS = 30.0
PATIENT = {"PAYMENT_PROVIDER__TIMEOUT_SECONDS": "60", "LIMITS__REQUEST_TIMEOUT_SECONDS": "60"}

BLOCK_AT_SIGNAL = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
"""


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The directory for the service's temporary files."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    return directory


def hold_request(
    service: Service, provider: HeldProvider, executor: ThreadPoolExecutor
) -> Future[httpx.Response]:
    """Send a request that waits for the provider."""
    request = executor.submit(httpx.get, service.url + RATES, timeout=DEADLINE_SECONDS)
    assert provider.asked.wait(DEADLINE_SECONDS)
    return request


def by_systemd(pid: int) -> None:
    """Signal every process of the service, as systemd does with `SendSIGHUP=yes`."""
    os.killpg(pid, signal.SIGTERM)
    os.killpg(pid, signal.SIGHUP)


def by_timeout(pid: int) -> None:
    """Signal the service and then all its processes, as `timeout` does."""
    os.kill(pid, signal.SIGTERM)
    os.killpg(pid, signal.SIGTERM)


@pytest.mark.parametrize("workers", ["1", "3"])
@pytest.mark.parametrize("stop", [by_systemd, by_timeout])
def test_a_signal_to_the_whole_group_loses_no_request(
    stop: Callable[[int], None],
    workers: str,
    start: Callable[..., Service],
    provider: HeldProvider,
) -> None:
    """Each worker drains once, and the exit status is 0."""
    service = start(WORKERS=workers, PAYMENT_PROVIDER__BASE_URL=provider.url, **PATIENT)
    with ThreadPoolExecutor() as executor:
        request = hold_request(service, provider, executor)
        stop(service.process.pid)
        time.sleep(0.5)
        provider.may_answer.set()

        assert request.result(DEADLINE_SECONDS).status_code == 200
    assert service.status() == 0
    assert '"level":"error"' not in service.text


def test_the_sandbox_outlives_the_requests_that_need_it(start: Callable[..., Service]) -> None:
    """In development, systemd's signal also reaches the sandbox."""
    service = start(WORKERS="2", **PATIENT)
    url = service.url
    slow = {"mode": "slow", "latency_seconds": 2.0}
    httpx.put(f"{url}/sandbox/mode", json=slow).raise_for_status()
    order = partial(
        httpx.post,
        f"{url}/api/v1/payments",
        json={"amount": 1250, "currency": "EUR", "customer_id": "customer-7"},
        headers={"Idempotency-Key": "key"},
        timeout=DEADLINE_SECONDS,
    )
    with ThreadPoolExecutor() as executor:
        request = executor.submit(order)
        # A charge is listed as soon as it arrives, and answered two seconds later.
        wait_until(lambda: httpx.get(f"{url}/sandbox/charges").json()["charges"])
        by_systemd(service.process.pid)

        assert request.result(DEADLINE_SECONDS).status_code == 201
    assert service.status() == 0


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGUSR1])
def test_a_worker_that_does_not_respond_is_replaced(
    fault: signal.Signals, start: Callable[..., Service], tmp_path: Path
) -> None:
    """This covers a stopped worker and one with a blocked event loop."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK_AT_SIGNAL)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    service = start(WORKERS="2", PYTHONPATH=paths)
    assert service.url
    silent, other = service.workers()
    os.kill(silent, fault)
    wait_until(lambda: len(service.workers()) == 3)

    assert "A worker does not respond" in service.text
    service.process.terminate()
    assert service.status() == 0
    assert other in service.workers()


def test_stopping_does_not_wait_for_a_worker_that_is_stopped(
    start: Callable[..., Service],
) -> None:
    """The worker is killed after a few seconds, and the exit status says so."""
    service = start(WORKERS="2")
    assert service.url
    os.kill(service.workers()[0], signal.SIGSTOP)
    began = time.monotonic()
    service.process.terminate()

    assert service.status() == 1
    assert time.monotonic() - began < GRACE_SECONDS


def test_the_end_of_another_worker_is_noted_beside_one_that_is_stopped(
    start: Callable[..., Service], temporary: Path
) -> None:
    """The supervisor does not wait for locks of the stopped worker."""
    service = start(WORKERS="2", TMPDIR=str(temporary))
    url = service.url
    killed = service.workers()[0]
    (directory,) = temporary.glob("example-service-*")
    # The lock of a worker that is stopped while it reads the metrics.
    with locked(directory / "lock", exclusive=False):
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(service.workers()) == 3)

    assert httpx.get(f"{url}/health/live").status_code == 200


def test_the_directory_of_a_killed_service_is_removed_by_the_next_one(
    start: Callable[..., Service], temporary: Path
) -> None:
    """The directory of a service that still runs is kept."""
    killed = start(WORKERS="2", TMPDIR=str(temporary))
    assert killed.url
    (left_over,) = temporary.glob("example-service-*")
    kill(killed)
    assert start(WORKERS="2", TMPDIR=str(temporary)).url
    (directory,) = temporary.glob("example-service-*")
    assert directory != left_over

    assert start(WORKERS="2", TMPDIR=str(temporary)).url
    assert directory.exists()
