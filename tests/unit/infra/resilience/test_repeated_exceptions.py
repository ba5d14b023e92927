"""One exception object may be raised by several calls, and passes them unchanged."""

import asyncio
import pickle
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from unittest.mock import AsyncMock, MagicMock

import pytest

from example_service.infra.resilience import CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import DownError, half_opened, make_breaker


@dataclass(frozen=True)
class FrozenError(DownError):
    """An exception whose attributes cannot be set."""

    code: int = 503


class DelegatingError(DownError):
    """An exception that forwards attributes, here to an object with every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.response = MagicMock()

    def __getattr__(self, name: str) -> object:
        return getattr(self.response, name)


class BrokenError(DownError):
    """An exception that fails to forward attributes."""

    def __getattr__(self, name: str) -> object:
        raise KeyError(name)


class SlottedError(DownError):
    """An exception with slots."""

    __slots__ = ("code",)


@pytest.mark.parametrize("kind", [FrozenError, DelegatingError, BrokenError, SlottedError])
def test_any_exception_is_counted_once_and_raised_as_it_is(kind: type[DownError]) -> None:
    """Its class may handle attributes in any way."""
    breaker = make_breaker()
    error = kind()

    @breaker.protected
    def fail() -> None:
        raise error

    for calls in range(1, 3):
        with pytest.raises(kind) as caught, breaker:
            fail()
        assert caught.value is error
        assert breaker.total_failures == calls
    assert breaker.in_flight == 0


async def test_one_exception_object_raised_by_many_calls_counts_for_each() -> None:
    """A mock raises the same object at every call."""
    breaker = make_breaker(failure_threshold=5)
    error = DownError("the same object")

    async def fail() -> None:
        raise error

    guarded = breaker.protected(fail)
    for calls in range(5):
        assert breaker.total_failures == calls
        with pytest.raises(DownError):
            await (guarded() if calls % 2 else breaker.call(fail))
    assert breaker.is_open


async def test_one_exception_object_raised_by_calls_at_once_counts_for_each() -> None:
    """This includes tasks that are awaited together."""
    breaker = make_breaker(failure_threshold=9)
    mock = AsyncMock(side_effect=DownError("the same object"))
    calls = [breaker.call(mock) for _ in range(5)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert breaker.total_failures == 5


def test_one_exception_object_raised_by_several_functions_counts_for_each() -> None:
    """Consecutive calls count separately, whatever they raise."""
    breaker = make_breaker(failure_threshold=9)
    error = DownError("the same object")

    def get() -> None:
        raise error

    def put() -> None:
        raise error

    for func in (get, put, get, put):
        with suppress(DownError):
            breaker.call_sync(func)
    assert breaker.total_failures == 4


def test_one_exception_object_raised_in_many_blocks_of_one_frame_counts_for_each() -> None:
    """This applies even if the frame that raises it has caught it before."""
    breaker = make_breaker(failure_threshold=3)
    error = DownError("the same object")
    for _ in range(3):
        with pytest.raises(DownError), breaker:
            raise error
    assert breaker.is_open


def test_one_exception_object_raised_by_one_future_counts_for_each_call() -> None:
    """A finished future raises the same exception each time it is read."""
    breaker = make_breaker(failure_threshold=10)
    future: Future[None] = Future()
    future.set_exception(DownError())
    for _ in range(3):
        with suppress(DownError), breaker:
            future.result()
    assert breaker.total_failures == 3


def test_a_counted_exception_can_be_pickled() -> None:
    """Marking it as counted does not prevent passing it to another process."""
    breaker = make_breaker()
    with pytest.raises(DownError) as caught, breaker:
        raise DownError("kept")
    assert pickle.loads(pickle.dumps(caught.value)).args == ("kept",)  # noqa: S301


def test_a_future_that_outlives_its_call_leaves_the_next_call_alone() -> None:
    """The probe continues in the future, not in the context that started it."""
    import concurrent.futures  # noqa: PLC0415

    breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    assert breaker.call_sync(lambda: future) is future
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(str)
    future.set_result("fine")
    assert breaker.is_closed
