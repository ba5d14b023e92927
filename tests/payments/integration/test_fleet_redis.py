"""Four service processes as one circuit, over a real Valkey that fails in every way."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import redis

from tests.chaos.clocks import faketime_library, wrong_clock
from tests.payments.fleet_processes import (
    RECOVERY_SECONDS,
    CountingProvider,
    Process,
    heal,
    processes,
    trip,
    wait_until,
)
from tests.real_parts import missing
from tests.tcp_proxy import ProxyThread, proxy_thread
from tests.valkey import ValkeyServer, running_valkey

pytestmark = pytest.mark.integration

COUNT = 4
STORE_SECONDS = 2.0
"""The timeout of the store, which is longer than the delays of a busy machine."""

UNREACHABLE = "The fleet cannot be reached"
BACK = "The fleet is back"
HOUR = 3600.0


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    """The fleet's store."""
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def provider() -> Iterator[CountingProvider]:
    """The provider that all processes call."""
    with CountingProvider().running() as provider:
        yield provider


def variables(port: int) -> dict[str, str]:
    """The settings of a process in the fleet."""
    url = f"redis://127.0.0.1:{port}/0"
    return {"REDIS__URL": url, "REDIS__TIMEOUT_SECONDS": str(STORE_SECONDS)}


@pytest.fixture(scope="module")
def proxy(valkey: ValkeyServer) -> Iterator[ProxyThread]:
    """The proxy between the last process and the store."""
    with proxy_thread(valkey.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory,
    valkey: ValkeyServer,
    proxy: ProxyThread,
    provider: CountingProvider,
) -> Iterator[list[Process]]:
    """Four processes for all tests; the last is on a host with a wrong clock."""
    library = faketime_library()
    clock = {} if library is None else wrong_clock(library, HOUR)
    each = [variables(valkey.port) for _ in range(COUNT - 1)]
    each.append({**variables(proxy.port), **clock})
    with processes(tmp_path_factory.mktemp("fleet"), provider, each) as started:
        yield started


@pytest.fixture
def fleet(
    started: list[Process], valkey: ValkeyServer, provider: CountingProvider
) -> list[Process]:
    """The processes with an empty store and all circuits closed."""
    _restart_empty(valkey)
    heal(started, provider)
    return started


def ask_all(fleet: list[Process], seconds: float, until: Callable[[], bool]) -> list[int]:
    """Let all processes send calls repeatedly, and return the statuses."""
    end = time.monotonic() + seconds
    statuses: list[int] = []
    with ThreadPoolExecutor(len(fleet)) as threads:
        while time.monotonic() < end and not until():
            statuses += threads.map(lambda process: process.ask(), fleet)
            time.sleep(0.02)
    return statuses


def never() -> bool:
    """A condition for a loop that ends by its timeout."""
    return False


def test_the_fleet_is_one_circuit(fleet: list[Process], provider: CountingProvider) -> None:
    """It opens in all processes, sends two probes in total, and closes in all."""
    trip(fleet[0], provider)
    wait_until(lambda: all(process.state() == "open" for process in fleet[1:]))
    assert provider.calls == 3
    assert "opened by" in fleet[1].health()["breakers"]["payment"]["reason"]

    provider.is_failing = False
    provider.seconds = 0.1
    before = provider.calls
    ask_all(fleet, 30, lambda: fleet[0].state() == "closed")
    wait_until(lambda: all(process.state() == "closed" for process in fleet[1:]))
    # Two probes, plus the calls of the last round, in which the circuit closed.
    assert 2 <= provider.calls - before <= 2 + COUNT


def test_a_failing_dependency_sees_the_probes_of_one_process(
    fleet: list[Process], provider: CountingProvider
) -> None:
    """It gets one after 1, 2 and 4 seconds, whatever the number of processes."""
    trip(fleet[0], provider)
    wait_until(lambda: all(process.state() == "open" for process in fleet[1:]))
    before = provider.calls
    statuses = ask_all(fleet, 4.0, never)
    # The backoff is random within 10 %.
    assert provider.calls - before <= 3
    assert statuses.count(502) == provider.calls - before


def test_an_order_survives_the_process_that_took_it(
    fleet: list[Process], tmp_path: Path, valkey: ValkeyServer, provider: CountingProvider
) -> None:
    """All other processes obey, and so does one that starts later."""
    assert fleet[0].order("force-open", reason="maintenance").status_code == 200
    fleet[0].signal(signal.SIGKILL)
    wait_until(lambda: all(process.ask() == 503 for process in fleet[1:]))
    assert fleet[1].health()["modes"]["payment"]["reason"] == "maintenance"

    late = Process(tmp_path / "late", provider, **variables(valkey.port))
    try:
        late.wait()
        assert late.ask() == 503
        assert late.order("reset").status_code == 200
        wait_until(lambda: all(process.ask() == 200 for process in fleet[1:]))
    finally:
        late.close()


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_lease_of_a_prober_that_is_gone_expires(
    fleet: list[Process], provider: CountingProvider, number: signal.Signals
) -> None:
    """Another process probes after the lease's deadline, two seconds later."""
    trip(fleet[0], provider)
    provider.is_failing = False
    provider.seconds = 15.0
    before = provider.calls
    with ThreadPoolExecutor(COUNT * 4) as threads:
        asked: list[tuple[Process, Future[int]]] = []
        while provider.calls == before:
            asked += [(process, threads.submit(process.ask)) for process in fleet]
            time.sleep(0.2)
        wait_until(lambda: [answer.done() for _, answer in asked].count(False) == 1)
        (prober,) = [process for process, answer in asked if not answer.done()]
        provider.seconds = 0.0
        prober.signal(number)
        others = [process for process in fleet if process is not prober]
        ask_all(others, 30, lambda: all(process.state() == "closed" for process in others))
        assert {process.state() for process in others} == {"closed"}
        prober.signal(signal.SIGCONT if number is signal.SIGSTOP else signal.SIGKILL)
        prober.close()


def command(valkey: ValkeyServer, *words: str) -> None:
    """Send one command to the store."""
    redis.Redis.from_url(valkey.url).execute_command(*words)  # type: ignore[no-untyped-call]


def _kill(valkey: ValkeyServer) -> None:
    valkey.kill()


def _suspend(valkey: ValkeyServer) -> None:
    valkey.suspend()


def _make_read_only(valkey: ValkeyServer) -> None:
    command(valkey, "REPLICAOF", "127.0.0.1", "1")


def _fill(valkey: ValkeyServer) -> None:
    command(valkey, "CONFIG", "SET", "maxmemory", "1")


def _restart_empty(valkey: ValkeyServer) -> None:
    valkey.kill()
    valkey.start()


def _resume(valkey: ValkeyServer) -> None:
    valkey.resume()


def _make_writable(valkey: ValkeyServer) -> None:
    command(valkey, "REPLICAOF", "NO", "ONE")


def _empty(valkey: ValkeyServer) -> None:
    command(valkey, "CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize(
    ("break_it", "repair_it"),
    [
        (_kill, _restart_empty),
        (_suspend, _resume),
        (_make_read_only, _make_writable),
        (_fill, _empty),
    ],
)
def test_without_the_store_each_process_is_a_local_breaker(
    fleet: list[Process],
    valkey: ValkeyServer,
    provider: CountingProvider,
    break_it: Callable[[ValkeyServer], None],
    repair_it: Callable[[ValkeyServer], None],
) -> None:
    """No call waits or fails, there is one warning, and the fleet reunites later."""
    assert [process.ask() for process in fleet] == [200] * COUNT
    break_it(valkey)
    began = time.monotonic()
    assert [process.ask() for process in fleet] == [200] * COUNT
    # A call that waited for the store would take the whole timeout.
    assert time.monotonic() - began < COUNT * STORE_SECONDS
    wait_until(lambda: not any(process.connected() for process in fleet))
    trip(fleet[0], provider)
    assert fleet[0].state() != "closed"
    assert [process.state() for process in fleet[1:]] == ["closed"] * (COUNT - 1)
    provider.is_failing = False
    ask_all(fleet[:1], 30, lambda: fleet[0].state() == "closed")
    assert [process.state() for process in fleet] == ["closed"] * COUNT

    repair_it(valkey)
    wait_until(lambda: all(process.connected() for process in fleet))
    trip(fleet[1], provider)
    wait_until(lambda: all(process.state() == "open" for process in fleet))
    assert {process.warnings(UNREACHABLE) for process in fleet} == {1}
    assert {process.warnings(BACK) for process in fleet} == {1}


def test_a_store_that_restarts_empty_learns_the_verdict_again(
    fleet: list[Process], valkey: ValkeyServer
) -> None:
    """Modes set by operators still apply, even in a process that starts after that."""
    assert fleet[0].order("force-open", reason="maintenance").status_code == 200
    wait_until(lambda: all(process.ask() == 503 for process in fleet))
    _restart_empty(valkey)
    wait_until(lambda: all(process.connected() for process in fleet))
    assert [process.ask() for process in fleet] == [503] * COUNT
    assert redis.Redis.from_url(valkey.url).exists("{example-service}:circuit:payment") == 1


def test_a_process_that_is_cut_off_is_on_its_own(
    fleet: list[Process], proxy: ProxyThread, provider: CountingProvider
) -> None:
    """It opens no other circuit, and obeys what it missed when it is back."""
    *others, lone = fleet
    proxy.fall_silent()
    try:
        wait_until(lambda: not lone.connected())
        trip(lone, provider)
        assert [process.state() for process in others] == ["closed"] * len(others)
        provider.is_failing = False
        ask_all([lone], 30, lambda: lone.state() == "closed")
        assert others[0].order("force-open", reason="maintenance").status_code == 200
        wait_until(lambda: all(process.ask() == 503 for process in others))
        assert lone.ask() == 200
    finally:
        proxy.speak()
    wait_until(lambda: lone.ask() == 503)
    assert lone.warnings(UNREACHABLE) == lone.warnings(BACK) == 1
    assert [process.warnings(UNREACHABLE) for process in others] == [0] * len(others)


def test_the_clock_of_a_host_does_not_matter(
    fleet: list[Process], provider: CountingProvider
) -> None:
    """A process an hour ahead opens and follows for as long as the others."""
    if faketime_library() is None:
        missing("libfaketime is not installed")
    *others, ahead = fleet
    trip(ahead, provider)
    wait_until(lambda: all(process.state() == "open" for process in others))
    opened_at = [_last_change(process) for process in (ahead, others[0])]
    assert (opened_at[0] - opened_at[1]).total_seconds() > HOUR - 60
    assert all(_wait_seconds(process) < 2 * RECOVERY_SECONDS for process in fleet)
    provider.is_failing = False
    ask_all(others, 30, lambda: all(process.state() == "closed" for process in fleet))

    trip(others[0], provider)
    wait_until(lambda: ahead.state() == "open")
    assert _wait_seconds(ahead) < 2 * RECOVERY_SECONDS
    assert ahead.order("disable", reason="trying", seconds=0.5).status_code == 200
    wait_until(lambda: all(not process.health()["modes"] for process in fleet))


def _last_change(process: Process) -> datetime:
    return datetime.fromisoformat(process.health()["transitions"][0]["at"])


def _wait_seconds(process: Process) -> float:
    return float(process.health()["transitions"][0]["wait_seconds"])


def test_an_order_without_the_store_applies_to_one_process(
    fleet: list[Process], valkey: ValkeyServer
) -> None:
    """The operator learns this from the response."""
    valkey.kill()
    wait_until(lambda: not any(process.connected() for process in fleet))
    response = fleet[0].order("force-open", reason="maintenance")
    assert response.status_code == 504
    assert "Only one process carried it out" in response.json()["detail"]
    assert [process.ask() for process in fleet] == [503, *[200] * (COUNT - 1)]
