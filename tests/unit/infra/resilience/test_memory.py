"""A breaker stores only counts, names and times, and its memory does not grow."""

import asyncio
import contextlib
import gc
import sys
import tracemalloc
import weakref

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.guarded_block import prepared_blocks
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import FORMS, DownError, make_breaker, opened, succeed


class Payload:
    """A large object that a guarded function uses."""


@pytest.mark.parametrize("form", FORMS)
async def test_no_exception_frame_or_argument_outlives_its_call(form: str) -> None:
    """This applies to failures, cancellations and refusals."""
    kept: list[weakref.ref[object]] = []
    breaker = make_breaker(failure_threshold=3)

    class OwnError(DownError):
        """An exception that supports weak references."""

    async def attempt(*, cancel: bool) -> None:
        payload = Payload()
        kept.append(weakref.ref(payload))

        async def work() -> None:
            error = OwnError(payload)
            kept.append(weakref.ref(error))
            if cancel:
                raise asyncio.CancelledError(payload)
            raise error

        with contextlib.suppress(OwnError, asyncio.CancelledError, CircuitOpenError):
            await FORMS[form](breaker, work)

    await attempt(cancel=True)
    for _ in range(5):
        await attempt(cancel=False)
    assert breaker.is_open
    gc.collect()
    assert [reference() for reference in kept] == [None] * len(kept)


@pytest.mark.parametrize("gil_enabled", [True, False])
def test_refused_calls_use_no_memory(gil_enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand refused calls use no more memory than a thousand."""
    monkeypatch.setattr("example_service.infra.resilience.rules.lockfree.GIL_ENABLED", gil_enabled)
    breaker = opened(FakeClock())

    def refuse(times: int) -> None:
        for _ in range(times):
            try:
                breaker.call_sync(str)
            except CircuitOpenError:
                continue

    refuse(1000)
    gc.collect()
    tracemalloc.start()
    refuse(1000)
    before, _ = tracemalloc.get_traced_memory()
    refuse(20_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    refuse(79_000)
    assert after - before < 2000
    assert breaker.total_rejections == 101_000


def test_raising_one_refusal_again_and_again_grows_nothing() -> None:
    """Each refusal is a new exception, without context or cause."""
    breaker = opened(FakeClock())
    caught = []
    for _ in range(3):
        with pytest.raises(CircuitOpenError) as one:
            breaker.call_sync(str)
        caught.append(one.value)
    assert len({id(error) for error in caught}) == 3
    assert all(error.__context__ is None and error.__cause__ is None for error in caught)


def test_short_lived_breakers_leave_nothing() -> None:
    """Ten thousand breakers share a name and are used once each, as in clients for one request."""
    registry = CircuitBreakerRegistry()

    def use(times: int) -> None:
        for _ in range(times):
            breaker = CircuitBreaker("client", registry=registry)
            with breaker:
                pass

    use(100)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    use(2000)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    use(7900)
    gc.collect()
    assert after - before < 20_000
    assert len(registry) == 0
    assert registry.snapshots() == []
    keeper = CircuitBreaker("client", registry=registry)
    assert registry.snapshots()[0].successes == 10_000
    assert keeper.total_successes == 0


def test_blocks_leave_nothing_behind() -> None:
    """There is at most one prepared block per thread, however many exits are looked up."""
    clock = FakeClock()
    breaker = make_breaker(clock, slow_call_duration=10.0)
    before = len(prepared_blocks)
    for _ in range(100):
        assert hasattr(breaker, "__exit__")
        with breaker:
            pass
    assert len(prepared_blocks) <= before + 1
    assert breaker.unclaimed is None


def test_a_breaker_is_small() -> None:
    """It uses about a kilobyte if nothing has failed, and only its user refers to it."""
    many = [make_breaker() for _ in range(10)]
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    many += [CircuitBreaker(str(number), registry=None) for number in range(1000)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / 1000 < 1500
    assert sys.getrefcount(many[-1]) == sys.getrefcount(many[0])


def test_an_unused_breaker_is_freed_at_once() -> None:
    """It is not part of a reference cycle, so it needs no garbage collection."""
    gc.collect()
    gc.disable()
    try:
        breaker = make_breaker()
        succeed(breaker)
        with breaker:
            pass
        gone = weakref.ref(breaker)
        del breaker
        assert gone() is None
    finally:
        gc.enable()


def test_names_of_errors_are_bounded() -> None:
    """A reason contains only a few names, each of readable length."""
    breaker = make_breaker(failure_threshold=50, expected_exception=Exception)
    for number in range(50):
        error = type(f"Error{number}" + "x" * 500, (Exception,), {})
        with contextlib.suppress(Exception), breaker:
            raise error
    assert len(breaker.get_metrics()["reason"]) < 600
