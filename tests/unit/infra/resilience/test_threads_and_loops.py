"""A single breaker serves any number of threads and event loops at once."""

import asyncio
import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from example_service.infra.resilience import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
)
from example_service.infra.resilience.rules.lockfree import GIL_ENABLED
from example_service.infra.resilience.testing import FakeClock, RecordingListener
from tests.unit.infra.resilience.breakers import (
    FORMS,
    PLAIN_FORMS,
    DownError,
    fail,
    half_opened,
    make_breaker,
)

THREADS = 8


@pytest.fixture(autouse=True)
def _tiny_switch_interval() -> Iterator[None]:
    """Make the interpreter switch between threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


# A free-threaded build counts nothing without the lock, which would lose counts.
LOCKS = {"gil": True, "free-threaded": False} if GIL_ENABLED else {"free-threaded": False}


@pytest.fixture(params=LOCKS.values(), ids=list(LOCKS))
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count without the lock, as builds with a global interpreter lock do, or never."""
    monkeypatch.setattr(
        "example_service.infra.resilience.rules.lockfree.GIL_ENABLED", request.param
    )


def _in_threads(work: Callable[[int], object], count: int = THREADS) -> None:
    """Run a function in several threads at once, and raise any exception of them."""
    errors: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            together.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001 - The test's thread raises it.
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("_path")
class TestThreads:
    """Threads on builds with and without a global interpreter lock."""

    @pytest.mark.parametrize("form", PLAIN_FORMS)
    def test_no_success_or_failure_is_lost(self, form: str) -> None:
        """Totals are exact, and no call is in flight at the end."""
        breaker = make_breaker(failure_threshold=1_000_000)

        def broken() -> None:
            raise DownError

        def work(number: int) -> None:
            for turn in range(200):
                if (turn + number) % 3:
                    PLAIN_FORMS[form](breaker, str)
                else:
                    with contextlib.suppress(DownError):
                        PLAIN_FORMS[form](breaker, broken)

        _in_threads(work)
        failures = sum((turn + number) % 3 == 0 for turn in range(200) for number in range(THREADS))
        assert breaker.total_failures == failures
        assert breaker.total_successes == THREADS * 200 - failures
        assert breaker.in_flight == 0

    def test_the_threshold_is_exact(self) -> None:
        """With many simultaneous failures, exactly the threshold opens, and no call runs after."""
        breaker = make_breaker(failure_threshold=100, recovery_timeout=1e9)

        def work(_: int) -> None:
            for _ in range(50):
                with contextlib.suppress(DownError, CircuitOpenError), breaker:
                    raise DownError

        _in_threads(work)
        metrics = breaker.get_metrics()
        assert metrics["state"] == "open"
        assert metrics["opened_count"] == 1
        assert metrics["failure_count"] == 100
        assert metrics["total_failures"] + metrics["total_rejections"] == THREADS * 50
        assert 100 <= metrics["total_failures"] < 100 + THREADS

    def test_the_limit_of_probes_is_exact(self) -> None:
        """There are never more simultaneous probes than allowed."""
        breaker = half_opened(FakeClock(), half_open_max_calls=3, success_threshold=1_000_000)
        lock = threading.Lock()
        at_once = most = done = 0

        def probe() -> None:
            nonlocal at_once, most, done
            with lock:
                at_once += 1
                most = max(most, at_once)
            with lock:
                at_once -= 1
                done += 1

        def work(_: int) -> None:
            for _ in range(100):
                with contextlib.suppress(CircuitOpenError), breaker:
                    probe()

        _in_threads(work)
        assert most <= 3
        assert breaker.total_successes == done
        assert breaker.total_successes + breaker.total_rejections == THREADS * 100
        assert breaker.in_flight == 0

    def test_everything_at_once_keeps_the_books(self) -> None:
        """Every call is counted despite outages, recoveries, resets, modes and scrapes."""
        clock, recorder, registry = FakeClock(), RecordingListener(), CircuitBreakerRegistry()
        breaker = make_breaker(
            clock,
            failure_threshold=3,
            recovery_timeout=1.0,
            probe_timeout=1_000_000.0,
            success_threshold=2,
            registry=registry,
            listeners=[recorder],
        )
        ran = [0] * THREADS
        failed = [0] * THREADS
        refused = [0] * THREADS

        def call(number: int, chance: random.Random) -> None:
            try:
                with breaker:
                    ran[number] += 1
                    _maybe_fail(chance)
            except DownError:
                failed[number] += 1
            except CircuitOpenError:
                refused[number] += 1

        def work(number: int) -> None:
            chance = random.Random(number)  # noqa: S311 - It only has to be repeatable.
            for turn in range(150):
                call(number, chance)
                if turn % 10 == number:
                    clock.advance(1.0)
                if turn % 50 == number:
                    registry.snapshots()
                    with contextlib.suppress(StopIteration):
                        breaker.reset().send(None)
                if turn % 70 == number:
                    breaker.force_open("thread says so", 0.5)

        _in_threads(work)
        (snapshot,) = registry.snapshots()
        assert snapshot.failures == sum(failed)
        assert snapshot.successes == sum(ran) - sum(failed)
        assert snapshot.rejections == sum(refused)
        assert snapshot.in_flight == 0
        changes = [event for event in recorder.events if hasattr(event, "from_state")]
        assert sum(snapshot.state_changes.values()) == len(changes)

    def test_a_thread_may_leave_a_block_that_another_entered(self) -> None:
        """An exit belongs to its block, not to a thread."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)
        stack = contextlib.ExitStack()
        stack.enter_context(breaker)
        _in_threads(lambda _: stack.close(), count=1)
        assert breaker.is_closed
        assert breaker.in_flight == 0


@pytest.mark.usefixtures("_path")
class TestLoops:
    """Event loops one after another, and in parallel threads."""

    @pytest.mark.parametrize("form", FORMS)
    def test_one_breaker_serves_one_loop_after_another(self, form: str) -> None:
        """No part of the breaker is bound to the first loop."""
        breaker = make_breaker()

        async def use() -> None:
            await asyncio.gather(*(FORMS[form](breaker, _pause) for _ in range(20)))

        for _ in range(3):
            asyncio.run(use())
        assert breaker.total_successes == 60

    def test_loops_in_several_threads_share_one_count(self) -> None:
        """They also share the limit of probes."""
        breaker = half_opened(FakeClock(), half_open_max_calls=2, success_threshold=1_000_000)
        lock = threading.Lock()
        at_once = most = 0

        async def probe() -> None:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            await asyncio.sleep(0)
            with lock:
                at_once -= 1

        async def try_all() -> None:
            await asyncio.gather(*(breaker.call(probe) for _ in range(50)), return_exceptions=True)

        _in_threads(lambda _: asyncio.run(try_all()), count=4)
        assert 1 <= most <= 2
        assert breaker.total_successes + breaker.total_rejections == 200
        assert breaker.in_flight == 0

    async def test_a_block_may_be_left_in_another_task(self) -> None:
        """Async generators and background tasks do this."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)
        stack = contextlib.AsyncExitStack()
        await asyncio.create_task(stack.enter_async_context(breaker))
        await asyncio.create_task(stack.aclose())
        assert breaker.is_closed

    async def test_blocks_nest_and_overlap(self) -> None:
        """Hundreds of tasks nest two blocks each, and each block ends its own admission."""
        breaker = make_breaker(failure_threshold=1_000_000)

        async def nested(number: int) -> None:
            with contextlib.suppress(DownError):
                async with breaker:
                    await asyncio.sleep(0)
                    async with breaker:
                        await asyncio.sleep(0)
                    if number % 2:
                        raise DownError

        await asyncio.gather(*(nested(number) for number in range(300)))
        assert breaker.total_failures == 150
        assert breaker.total_successes == 450
        assert breaker.in_flight == 0


def _maybe_fail(chance: random.Random) -> None:
    if chance.random() < 0.4:
        raise DownError


async def _pause() -> None:
    await asyncio.sleep(0)


class TestDocumentedLock:
    """`breaker._lock`, as users' tests take it."""

    async def test_it_is_taken_with_both_kinds_of_with(self) -> None:
        """It excludes other threads, but can be taken again in the same thread."""
        breaker = make_breaker(failure_threshold=1)
        outcome: list[bool] = []

        def try_it() -> None:
            outcome.append(breaker.mutex.acquire(blocking=False))

        async with breaker._lock:
            _in_threads(lambda _: try_it(), count=1)
            fail(breaker)
        with breaker._lock:
            _in_threads(lambda _: try_it(), count=1)
        assert outcome == [False, False]
        assert breaker.is_open

    def test_the_guarded_call_runs_outside_of_it(self) -> None:
        """Other threads can make calls while one is in its block."""
        breaker: CircuitBreaker = make_breaker(slow_call_duration=10.0)
        with breaker:
            _in_threads(lambda _: breaker.call_sync(str), count=2)
        assert breaker.total_successes == 3
