"""What a worker does for and with the others while its application runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from example_service.infra.metrics.shared.worker import Worker
from example_service.infra.resilience import CircuitState
from example_service.infra.workers.peers import Peers
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

    async with Worker(directory, one.figures, Peers(directory)).sharing():
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

    alone = Peers(None)
    async with Worker(directory, one.figures, alone, copy_interval_seconds=0.0).sharing():
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
    async with Worker(directory, one.figures, Peers(directory)).sharing():
        one.breakers.show(failures=1, state=CircuitState.OPEN, in_flight=1)

    assert total(FAILURES, name="payment") == 1
    assert total("circuit_breaker_state", name="payment") == 0
    assert total("circuit_breaker_calls_in_flight", name="payment") == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_worker_copies_when_another_gathers(process: Processes, directory: Path) -> None:
    """Whoever is asked for the metrics has the others copy first, so the sums are exact."""
    one, other = process(1), process(2)
    first, second = Peers(directory, pid=1), Peers(directory, pid=2)
    asked, asking = (
        Worker(directory, one.figures, first),
        Worker(directory, other.figures, second),
    )
    async with asked.sharing(), asking.sharing(), first.listening():
        one.breakers.show(failures=1)
        other.breakers.show(failures=2)

        registry = await asking.gather()

        assert registry.get_sample_value(FAILURES, {"name": "payment"}) == 3


async def test_a_worker_that_does_not_answer_counts_with_what_it_copied_last(
    process: Processes, directory: Path
) -> None:
    """One that is too busy costs exactness, not the scrape."""
    one, other = process(1), process(2)
    busy = Peers(directory, pid=1)
    async with Worker(directory, one.figures, busy).sharing(), busy.listening():
        busy.answer("metrics", never)
        one.breakers.show(failures=1)
        one.figures.copy()
        one.breakers.show(failures=2)

        asking = Peers(directory, pid=2, answer_seconds=0.05)
        registry = await Worker(directory, other.figures, asking).gather()

        assert registry.get_sample_value(FAILURES, {"name": "payment"}) == 1


async def never(_: bytes) -> bytes:
    """Be too busy to answer."""
    await asyncio.Event().wait()
    raise AssertionError
