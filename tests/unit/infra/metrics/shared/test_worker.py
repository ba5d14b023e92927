"""How a worker shares its metrics while its application runs."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from example_service.infra.metrics.shared.worker import Worker
from example_service.infra.resilience import CircuitState
from tests.unit.infra.metrics.fakes import FakeProcess

Processes = Callable[[int], FakeProcess]
Total = Callable[..., float | None]
FAILURES = "circuit_breaker_failures_total"


async def test_metrics_are_shared_from_the_start(
    process: Processes, directory: Path, total: Total
) -> None:
    """A worker without requests shows zeros instead of nothing."""
    one = process(1)
    one.breakers.show()

    async with Worker(directory, one.shared).sharing():
        assert total(FAILURES, name="payment") == 0


async def test_metrics_are_copied_regularly(
    process: Processes, directory: Path, total: Total, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed worker loses only what it counted since the last copy."""
    one = process(1)
    copy = one.shared.try_copy
    copied = asyncio.Event()

    def copy_and_signal() -> None:
        copy()
        copied.set()

    async with Worker(directory, one.shared, copy_interval_seconds=0.0).sharing():
        one.breakers.show(failures=1)
        monkeypatch.setattr(one.shared, "try_copy", copy_and_signal)
        async with asyncio.timeout(60):
            await copied.wait()

        assert total(FAILURES, name="payment") == 1


async def test_many_metrics_are_copied_outside_the_event_loop(
    process: Processes, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of breakers, a copy takes longer than a request should wait."""
    one = process(1)
    copied = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads: list[threading.Thread] = []

    def note() -> None:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(copied.set)

    async with Worker(directory, one.shared, copy_interval_seconds=0.0).sharing():
        monkeypatch.setattr(one.shared, "try_copy", note)
        async with asyncio.timeout(60):
            await copied.wait()
        assert threading.main_thread() not in threads


async def test_metrics_are_copied_at_the_end(
    process: Processes, directory: Path, total: Total
) -> None:
    """An orderly end loses no count, and leaves no circuit open and no call in flight."""
    one = process(1)
    async with Worker(directory, one.shared).sharing():
        one.breakers.show(failures=1, state=CircuitState.OPEN, in_flight=1)

    assert total(FAILURES, name="payment") == 1
    assert total("circuit_breaker_state", name="payment") == 0
    assert total("circuit_breaker_calls_in_flight", name="payment") == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_worker_that_gathers_copies_its_own_metrics_first(
    process: Processes, directory: Path
) -> None:
    """The other workers count with their last copy, which is at most a second old."""
    one, other = process(1), process(2)
    busy = Worker(directory, one.shared, copy_interval_seconds=60.0)
    asked = Worker(directory, other.shared, copy_interval_seconds=60.0)
    async with busy.sharing(), asked.sharing():
        one.breakers.show(failures=1)
        one.shared.copy()
        one.breakers.show(failures=2)
        other.breakers.show(failures=4)

        registry = asked.gather()

        assert registry.get_sample_value(FAILURES, {"name": "payment"}) == 5


def test_without_the_directory_a_worker_returns_its_own_gauges(
    process: Processes, directory: Path
) -> None:
    """It shows its own circuits and that the fleet is lost; a partial sum would be wrong."""
    one = process(1)
    worker = Worker(directory, one.shared)
    one.breakers.show(failures=1, state=CircuitState.OPEN)
    worker.gather()
    shutil.rmtree(directory)
    directory.touch()

    registry = worker.gather()

    assert registry.get_sample_value("circuit_breaker_state", {"name": "payment"}) == 2
    assert registry.get_sample_value(FAILURES, {"name": "payment"}) is None
    directory.unlink()
    assert worker.gather().get_sample_value(FAILURES, {"name": "payment"}) == 1


async def test_copying_goes_on_after_an_unexpected_error(
    process: Processes,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be impossible to start a thread, for example; the log has one line."""
    one = process(1)
    copied = asyncio.Event()
    failures = 3

    async def fail_at_first(_: Callable[[], None]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("can't start new thread")
        copied.set()

    monkeypatch.setattr(asyncio, "to_thread", fail_at_first)
    async with Worker(directory, one.shared, copy_interval_seconds=0.0).sharing():
        async with asyncio.timeout(60):
            await copied.wait()

    assert caplog.messages == ["The metrics of this worker could not be copied"]
