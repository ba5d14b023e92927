"""A value that is computed once for many callers."""

import asyncio

import pytest

from example_service.infra.kept import Kept
from example_service.infra.resilience.testing import FakeClock


class Counter:
    """Counts its calls, and fails on request."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    async def compute(self) -> int:
        """Count."""
        self.count += 1
        await asyncio.sleep(0)
        if self.fails:
            raise LookupError
        return self.count


async def test_a_value_is_computed_once_for_all_callers() -> None:
    """When it has expired, it is computed again."""
    counter, clock = Counter(), FakeClock()
    kept = Kept(counter.compute, seconds=1.0, clock=clock)

    assert await asyncio.gather(*(kept.get() for _ in range(50))) == [1] * 50
    clock.advance(0.75)
    assert await kept.get() == 1
    clock.advance(0.25)
    assert await kept.get() == 2


async def test_a_cancelled_caller_does_not_cancel_the_computation() -> None:
    """Other callers may still be waiting for the value."""
    kept = Kept(Counter().compute)
    impatient, patient = (asyncio.create_task(kept.get()) for _ in range(2))
    await asyncio.sleep(0)

    impatient.cancel()

    assert await patient == 1


async def test_an_error_is_not_kept() -> None:
    """The next caller starts a new computation."""
    counter = Counter()
    kept = Kept(counter.compute)
    counter.fails = True
    with pytest.raises(LookupError):
        await kept.get()

    counter.fails = False

    assert await kept.get() == 2
