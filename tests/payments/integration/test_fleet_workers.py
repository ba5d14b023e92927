"""Four workers on one machine as one circuit, over the directory that they share."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from example_service.infra.fleet.directory_store import FILE
from tests.payments.fleet_processes import (
    RATES,
    START_SECONDS,
    CountingProvider,
    Process,
    heal,
    processes,
    trip,
    wait_until,
)
from tests.shared_directories import replace_by_file

pytestmark = pytest.mark.integration

WORKERS = 4
UNREACHABLE = "cannot use the shared directory"
BACK = "can use the shared directory"


@pytest.fixture(scope="module")
def provider() -> Iterator[CountingProvider]:
    """The provider that all workers call."""
    with CountingProvider().running() as provider:
        yield provider


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the service."""
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def started(folder: Path, provider: CountingProvider) -> Iterator[Process]:
    """The service with four workers, started once for all tests."""
    with processes(folder, provider, [{"WORKERS": str(WORKERS)}]) as (service,):
        yield service


@pytest.fixture
def service(started: Process, provider: CountingProvider) -> Process:
    """The service with all circuits closed."""
    wait_until(lambda: len(started.health()["workers"]) == WORKERS)
    heal([started], provider)
    return started


@pytest.fixture
def shared(folder: Path) -> Path:
    """The directory that the workers share."""
    (found,) = (folder / "0").glob("example-service-*")
    return found


def statuses(service: Process, count: int = 60) -> set[int]:
    """The statuses of requests over new connections, which all workers accept."""
    with ThreadPoolExecutor(12) as threads:
        return set(threads.map(lambda _: httpx.get(service.url + RATES).status_code, range(count)))


def all_follow(service: Process) -> bool:
    """Whether the last state change of every worker opened its circuit."""
    last: dict[int, str] = {}
    for change in service.health()["transitions"]:
        last.setdefault(change["worker"], change["to_state"])
    return list(last.values()).count("open") == WORKERS


def test_when_one_worker_opens_the_others_follow(
    service: Process, provider: CountingProvider
) -> None:
    """Only three failures reach the dependency."""
    trip(service, provider)
    wait_until(lambda: all_follow(service))
    assert provider.calls == 3


def test_all_workers_together_send_the_probes_of_one(
    service: Process, provider: CountingProvider
) -> None:
    """One probe after 1, 2 and 4 seconds; two successes close all circuits."""
    trip(service, provider)
    wait_until(lambda: all_follow(service))
    before, end = provider.calls, time.monotonic() + 4.0
    while time.monotonic() < end:
        statuses(service, 24)
    assert provider.calls - before <= 3

    provider.is_failing = False
    wait_until(lambda: statuses(service, 24) == {200})
    wait_until(lambda: service.state() == "closed")


def test_an_order_survives_the_worker_that_took_it(service: Process) -> None:
    """All other workers obey, and so does the replacement."""
    before = set(service.health()["workers"])
    response = service.order("force-open", reason="maintenance")
    assert (response.status_code, set(response.json()["workers"])) == (200, before)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _has_only_new_workers(service, before), START_SECONDS)
    assert statuses(service) == {503}
    assert service.order("reset").status_code == 200
    assert statuses(service) == {200}


def _has_only_new_workers(service: Process, before: set[int]) -> bool:
    try:
        health = httpx.get(f"{service.url}/health/circuit-breakers").json()
    except httpx.HTTPError:
        return False
    return len(health["workers"]) == WORKERS and not before & set(health["workers"])


def test_a_worker_that_hangs_delays_recovery_by_its_lease_only(
    service: Process, provider: CountingProvider
) -> None:
    """The others recover, and the worker follows them when it runs again."""
    trip(service, provider)
    provider.is_failing = False
    hanging = service.health()["workers"][0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        wait_until(lambda: _some_answer(service) == 200)
    finally:
        os.kill(hanging, signal.SIGCONT)
    wait_until(lambda: statuses(service, 24) == {200})


def _some_answer(service: Process) -> int | None:
    """The response of a running worker, or None if the connection went to the hanging one."""
    try:
        return httpx.get(service.url + RATES, timeout=2.0).status_code
    except httpx.HTTPError:
        return None


def _damage(shared: Path) -> None:
    (shared / FILE).write_text('{"epoch": "half')


def test_a_damaged_file_is_replaced(
    service: Process, provider: CountingProvider, shared: Path
) -> None:
    """The first worker that sees it replaces it, and all are one circuit again."""
    _damage(shared)
    wait_until(lambda: 0 < service.warnings(UNREACHABLE) == service.warnings(BACK))
    epoch, *_ = json.loads((shared / FILE).read_text().partition("\n")[0])
    assert len(epoch) == 32
    trip(service, provider)
    wait_until(lambda: all_follow(service))
    assert provider.calls == 3


def _states(service: Process, count: int = 40) -> set[str]:
    """The states that workers without the others' reports show for their own circuits."""
    url = f"{service.url}/health/circuit-breakers"
    with ThreadPoolExecutor(12) as threads:
        answers = threads.map(lambda _: httpx.get(url).json(), range(count))
        return {answer["breakers"]["payment"]["state"] for answer in answers}


def _connected(service: Process) -> set[str]:
    """The values of the metric that says whether a worker is connected to the fleet."""
    metric = re.compile(r"^circuit_breaker_fleet_connected (.*)$", re.MULTILINE)
    found = [metric.search(httpx.get(f"{service.url}/metrics").text) for _ in range(12)]
    return {"missing" if entry is None else entry[1] for entry in found}


def test_without_the_directory_each_worker_is_a_local_breaker(
    service: Process, provider: CountingProvider, shared: Path
) -> None:
    """No call waits or fails, each worker logs one line, and all recover by themselves."""
    replace_by_file(shared)
    assert statuses(service) == {200}
    wait_until(lambda: _connected(service) == {"0.0"})
    trip(service, provider)
    # The others stay closed, because each circuit opens only by its own failures.
    wait_until(lambda: len(states := _states(service)) > 1 and "closed" in states)
    assert service.warnings(UNREACHABLE) == WORKERS
    assert service.warnings("Traceback") == 0

    shared.unlink()
    wait_until(lambda: _connected(service) == {"1.0"})
    wait_until(lambda: len(service.health()["workers"]) == WORKERS)
    wait_until(lambda: service.warnings(BACK) == WORKERS)
    assert shared.stat().st_mode & 0o777 == 0o700
