"""What a worker does for and with the others while its application runs."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from example_service.infra.metrics.shared_figures import SharedFigures
from example_service.infra.metrics.worker import Worker, socket_path
from example_service.infra.resilience import CircuitState
from tests.unit.infra.metrics.fakes import FakeProcess

Processes = Callable[[int], FakeProcess]
Total = Callable[..., float | None]
FAILURES = "circuit_breaker_failures_total"


async def test_figures_are_there_from_the_start(
    process: Processes, directory: Path, total: Total
) -> None:
    """A worker that was never asked shows zeros, not nothing."""
    one = process(1)
    one.breakers.show()

    async with Worker(directory, one.figures).sharing():
        assert total(FAILURES, name="payment") == 0


async def test_figures_are_copied_from_time_to_time(
    process: Processes, directory: Path, total: Total, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed has left behind what it counted until shortly before."""
    one = process(1)
    copy = one.figures.try_copy
    copied = asyncio.Event()

    def copy_and_tell() -> None:
        copy()
        copied.set()

    async with Worker(directory, one.figures, copy_interval_seconds=0.0).sharing():
        one.breakers.show(failures=1)
        monkeypatch.setattr(one.figures, "try_copy", copy_and_tell)
        async with asyncio.timeout(5):
            await copied.wait()

        assert total(FAILURES, name="payment") == 1


async def test_figures_are_copied_at_the_end(
    process: Processes, directory: Path, total: Total
) -> None:
    """An orderly end loses no count, and leaves nothing open, in flight or running."""
    one = process(1)
    async with Worker(directory, one.figures).sharing():
        one.breakers.show(failures=1, state=CircuitState.OPEN, in_flight=1)

    assert total(FAILURES, name="payment") == 1
    assert total("circuit_breaker_state", name="payment") == 0
    assert total("circuit_breaker_calls_in_flight", name="payment") == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not socket_path(directory, 1).exists()


async def test_a_worker_copies_when_another_gathers(process: Processes, directory: Path) -> None:
    """Whoever is asked for the metrics has the others copy first, so the sums are exact."""
    one, other = process(1), process(2)
    asked, asking = Worker(directory, one.figures, pid=1), Worker(directory, other.figures, pid=2)
    async with asked.sharing(), asking.sharing():
        one.breakers.show(failures=1)
        other.breakers.show(failures=2)

        registry = await asking.gather()

        assert registry.get_sample_value(FAILURES, {"name": "payment"}) == 3


async def test_workers_that_ask_each_other_at_once_all_get_an_answer(
    process: Processes, directory: Path
) -> None:
    """Two scrapes at a time do not wait for one another."""
    processes = {pid: process(pid) for pid in (1, 2)}
    one, other = (Worker(directory, each.figures, pid=pid) for pid, each in processes.items())
    async with one.sharing(), other.sharing():
        for each in processes.values():
            each.breakers.show(failures=1)

        registries = await asyncio.gather(one.gather(), other.gather(), one.gather())

        totals = [each.get_sample_value(FAILURES, {"name": "payment"}) for each in registries]
        assert totals == [2, 2, 2]


async def test_workers_that_do_not_answer_are_not_waited_for(
    process: Processes, directory: Path
) -> None:
    """One is gone without a word, one hangs: both count with what they copied last."""
    one = process(3)
    one.breakers.show(failures=1)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(socket_path(directory, 1)))
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(socket_path(directory, 2)))
        hanging.listen()

        registry = await Worker(directory, one.figures, answer_timeout_seconds=0.0).gather()

    assert registry.get_sample_value(FAILURES, {"name": "payment"}) == 1


async def test_a_path_too_long_for_a_socket_costs_only_exactness(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker says so, and serves."""
    with caplog.at_level(logging.WARNING):
        async with Worker(tmp_path / ("d" * 120), SharedFigures(())).sharing():
            assert [record.levelname for record in caplog.records] == ["WARNING"]
