"""A value that is computed once for many."""

import asyncio

import pytest

from example_service.infra.kept import Kept
from example_service.infra.resilience.testing import FakeClock


class Counter:
    """Counts how often it is asked, and fails if it has to."""

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


async def test_a_value_is_computed_once_for_all_who_ask() -> None:
    """And once more when its time is over."""
    counter, clock = Counter(), FakeClock()
    kept = Kept(counter.compute, seconds=1.0, clock=clock)

    assert await asyncio.gather(*(kept.get() for _ in range(50))) == [1] * 50
    clock.advance(0.75)
    assert await kept.get() == 1
    clock.advance(0.25)
    assert await kept.get() == 2


async def test_one_who_stops_waiting_leaves_the_value_to_the_others() -> None:
    """A client that hangs up does not cancel what others wait for."""
    kept = Kept(Counter().compute)
    impatient, patient = (asyncio.create_task(kept.get()) for _ in range(2))
    await asyncio.sleep(0)

    impatient.cancel()

    assert await patient == 1


async def test_an_error_is_not_kept() -> None:
    """The next one who asks has it computed again."""
    counter = Counter()
    kept = Kept(counter.compute)
    counter.fails = True
    with pytest.raises(LookupError):
        await kept.get()

    counter.fails = False

    assert await kept.get() == 2
