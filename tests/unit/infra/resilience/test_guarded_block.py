"""`async with breaker` and `with breaker`: each exit ends its own admission."""

import contextlib
import gc
import inspect
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError, CircuitState
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    DownError,
    RunningCall,
    fail,
    make_breaker,
    opened,
)


def half_open_breaker(clock: FakeClock) -> CircuitBreaker:
    """A breaker that admits one probe, whose success closes the circuit."""
    breaker = CircuitBreaker(
        "block",
        failure_threshold=1,
        recovery_timeout=10.0,
        success_threshold=1,
        half_open_max_calls=1,
        clock=clock,
        registry=None,
    )
    with contextlib.suppress(DownError), breaker:
        raise DownError
    clock.advance(10.0)
    assert breaker.is_half_open
    return breaker


class DelegatingBlock:
    """A user's context manager that calls the breaker's methods by name."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker

    async def __aenter__(self) -> Self:
        await self.breaker.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.breaker.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> Self:
        self.breaker.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.breaker.__exit__(exc_type, exc, traceback)


class OverridingBreaker(CircuitBreaker):
    """A subclass that extends the exit."""

    __slots__ = ()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)


class TestMethodsCalledByName:
    """Enter and exit called as ordinary methods, not by a `with` statement."""

    async def test_a_probe_entered_by_name_is_admitted_and_closes_the_circuit(self) -> None:
        """A circuit recovers through a wrapper around the block as well."""
        breaker = half_open_breaker(FakeClock())
        async with DelegatingBlock(breaker):
            assert breaker.in_flight == 1
        assert breaker.is_closed
        assert breaker.in_flight == 0

    def test_a_plain_probe_entered_by_name_is_admitted_and_closes_the_circuit(self) -> None:
        """The same applies to a wrapper around the plain block."""
        breaker = half_open_breaker(FakeClock())
        with DelegatingBlock(breaker):
            pass
        assert breaker.is_closed
        assert breaker.in_flight == 0

    async def test_a_block_entered_by_name_may_end_after_the_circuit_opened(self) -> None:
        """Its own exception is passed on, and counts only in the totals."""
        breaker = CircuitBreaker("block", failure_threshold=1, registry=None)

        async def block() -> None:
            async with DelegatingBlock(breaker):
                fail(breaker)
                raise DownError("the block's own")

        with pytest.raises(DownError, match="the block's own"):
            await block()
        assert breaker.is_open
        assert breaker.total_failures == 2
        assert breaker.in_flight == 0

    async def test_a_block_entered_by_name_is_counted_under_a_mode(self) -> None:
        """A mode has to be asked about every admission."""
        breaker = CircuitBreaker("block", registry=None)
        breaker.disable("false alarm")
        async with DelegatingBlock(breaker):
            assert breaker.in_flight == 1
        with contextlib.suppress(DownError), DelegatingBlock(breaker):
            raise DownError
        assert (breaker.total_successes, breaker.total_failures) == (1, 1)
        assert breaker.in_flight == 0

    async def test_a_subclass_may_override_the_exit(self) -> None:
        """A probe admitted by a subclass ends through the subclass's exit."""
        clock = FakeClock()
        breaker = OverridingBreaker(
            "block",
            failure_threshold=1,
            recovery_timeout=10.0,
            success_threshold=1,
            half_open_max_calls=1,
            clock=clock,
            registry=None,
        )
        with contextlib.suppress(DownError):
            async with breaker:
                raise DownError
        clock.advance(10.0)
        async with breaker:
            pass
        assert breaker.is_closed

    async def test_an_exit_pushed_on_a_stack_settles_a_block_entered_by_name(self) -> None:
        """`push_async_exit` after a successful enter works as contextlib documents it."""
        breaker = half_open_breaker(FakeClock())
        async with contextlib.AsyncExitStack() as stack:
            await breaker.__aenter__()
            stack.push_async_exit(breaker)
        assert breaker.is_closed
        assert breaker.in_flight == 0


@contextlib.asynccontextmanager
async def entered_and_left_by_name(breaker: CircuitBreaker) -> AsyncIterator[None]:
    """Call the methods as a generator does."""
    await breaker.__aenter__()
    try:
        yield
    except DownError as error:
        await breaker.__aexit__(DownError, error, None)
        raise
    await breaker.__aexit__(None, None, None)


@contextlib.asynccontextmanager
async def pushed_on_a_stack(breaker: CircuitBreaker) -> AsyncIterator[None]:
    """Push the exit as documented for `contextlib`."""
    async with contextlib.AsyncExitStack() as stack:
        await breaker.__aenter__()
        stack.push_async_exit(breaker)
        yield


def itself(breaker: CircuitBreaker) -> CircuitBreaker:
    """The breaker itself, for classes with special methods."""
    return breaker


WAYS: list[tuple[type[CircuitBreaker], Callable[[CircuitBreaker], Any]]] = [
    (CircuitBreaker, DelegatingBlock),
    (CircuitBreaker, entered_and_left_by_name),
    (CircuitBreaker, pushed_on_a_stack),
    (OverridingBreaker, itself),
]


class TestLookUpsOfTheExit:
    """Looking up an exit, to call or to inspect it, must not prepare an entry."""

    @pytest.mark.parametrize(("kind", "block"), WAYS)
    @pytest.mark.parametrize("slow_call_duration", [None, 10.0])
    async def test_every_probe_counts(
        self,
        kind: type[CircuitBreaker],
        block: Callable[[CircuitBreaker], Any],
        slow_call_duration: float | None,
    ) -> None:
        """The circuit closes after `success_threshold` probes."""
        clock = FakeClock()
        breaker = kind(
            "block",
            failure_threshold=1,
            success_threshold=4,
            half_open_max_calls=1,
            slow_call_duration=slow_call_duration,
            clock=clock,
            registry=None,
        )
        with contextlib.suppress(DownError):
            async with block(breaker):
                raise DownError
        clock.advance(60.0)
        for _ in range(4):
            assert breaker.is_half_open
            async with block(breaker):
                assert breaker.in_flight == 1
            assert breaker.in_flight == 0
        assert breaker.is_closed

    @pytest.mark.parametrize(("kind", "block"), WAYS)
    async def test_no_call_that_has_ended_is_taken_for_a_slow_one(
        self, kind: type[CircuitBreaker], block: Callable[[CircuitBreaker], Any]
    ) -> None:
        """It does not matter how much time has passed since its end."""
        clock = FakeClock()
        breaker = kind("block", slow_call_duration=10.0, clock=clock, registry=None)
        for _ in range(12):
            async with block(breaker):
                clock.advance(0.1)
        clock.advance(60.0)
        assert breaker.is_closed
        assert (breaker.total_successes, breaker.total_failures) == (12, 0)

    async def test_looking_up_the_exit_takes_no_probe_slot(self) -> None:
        """`hasattr` and `inspect.getmembers` look it up without calling it."""
        clock = FakeClock()
        breaker = opened(clock, success_threshold=1, half_open_max_calls=1)
        clock.advance(60.0)
        assert hasattr(CircuitBreaker, "__aexit__")
        async with breaker:
            pass
        assert breaker.is_closed

    @pytest.mark.parametrize("is_open", [True, False])
    async def test_looking_at_every_member_between_two_blocks_changes_nothing(
        self, is_open: bool
    ) -> None:
        """This applies after a refused block, and before, during and after a probe."""
        clock = FakeClock()
        breaker = opened(clock, success_threshold=2, half_open_max_calls=1)
        if is_open:
            with pytest.raises(CircuitOpenError):
                async with breaker:
                    pass
        for owner in (breaker, CircuitBreaker):
            inspect.getmembers(owner)
        clock.advance(60.0)
        for _ in range(2):
            assert all(hasattr(breaker, name) for name in dir(breaker))
            async with breaker:
                inspect.getmembers(breaker)
            inspect.getmembers(CircuitBreaker)
        assert breaker.is_closed
        assert (breaker.total_successes, breaker.in_flight) == (2, 0)


class TestResultPredicate:
    """A block has no result."""

    async def test_a_block_never_asks_is_failed_result(self) -> None:
        """A predicate for responses must not receive a None that no function returned."""
        asked: list[object] = []

        def is_failed(result: object) -> bool:
            asked.append(result)
            return True

        breaker = CircuitBreaker("block", is_failed_result=is_failed, registry=None)
        async with breaker:
            pass
        with breaker:
            pass
        assert asked == []
        assert breaker.total_successes == 2


def test_another_block_between_look_up_and_enter_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finalizer or signal handler may enter a block while another is being entered."""
    for gil_enabled in (True, False):
        monkeypatch.setattr(
            "example_service.infra.resilience.rules.lockfree.GIL_ENABLED", gil_enabled
        )
        breaker = CircuitBreaker("block", registry=None)
        other = CircuitBreaker("other", registry=None)
        leave = breaker.__exit__
        with other:
            pass
        breaker.__enter__()
        leave(None, None, None)
        assert breaker.total_successes == other.total_successes == 1
        assert breaker.in_flight == 0


class TestStateChangesBetweenLookUpAndEnter:
    """The state changes after the exit was looked up and before the block is entered."""

    def test_a_block_that_becomes_a_probe_closes_the_circuit(self) -> None:
        """Its exit was looked up when the circuit was still closed."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=1, success_threshold=1)
        leave = breaker.__exit__
        _open_until_half_open(breaker, clock)
        breaker.__enter__()
        leave(None, None, None)
        assert breaker.is_closed
        assert breaker.total_successes == 1
        assert breaker.in_flight == 0

    def test_a_call_of_the_earlier_period_leaves_that_probe_alone(self) -> None:
        """The call has an exit of the same closed period, but runs in another context."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=1, success_threshold=1)
        earlier = RunningCall(breaker)
        context, leave = copy_context(), breaker.__exit__
        _open_until_half_open(breaker, clock)
        context.run(breaker.__enter__)
        earlier.fail()
        assert breaker.is_half_open
        context.run(leave, None, None, None)
        assert breaker.is_closed
        assert (breaker.total_failures, breaker.total_successes) == (2, 1)
        assert breaker.in_flight == 0

    @pytest.mark.parametrize("looked_up", ["closed", "open"])
    def test_a_call_after_the_probe_is_counted(self, looked_up: str) -> None:
        """It is not part of a probe that has ended, whatever other probes are running."""
        clock = FakeClock()
        breaker = make_breaker(clock, failure_threshold=1, success_threshold=9)
        if looked_up == "open":
            breaker.force(CircuitState.OPEN, "for the test")
        with ThreadPoolExecutor(1) as here, ThreadPoolExecutor(1) as there:
            exits = [
                (thread, thread.submit(getattr, breaker, "__exit__").result())
                for thread in (here, there)
            ]
            _open_until_half_open(breaker, clock)
            for thread, _ in exits:
                thread.submit(breaker.__enter__).result()
            for thread, leave in exits:
                thread.submit(leave, None, None, None).result()
                thread.submit(breaker.call_sync, str).result()
        assert breaker.total_successes == 4
        assert breaker.in_flight == 0


def _open_until_half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    if breaker.is_closed:
        with contextlib.suppress(DownError):
            breaker.call_sync(_raise_down)
    clock.advance(breaker.recovery_timeout)
    assert breaker.is_half_open


def _raise_down() -> None:
    raise DownError


async def test_a_probe_that_is_the_first_look_after_the_wait_settles_its_own_admission() -> None:
    """After a reset, its failure is late and does not count in the new period in CLOSED."""
    clock = FakeClock()
    breaker = CircuitBreaker(
        "block", failure_threshold=1, recovery_timeout=10.0, clock=clock, registry=None
    )
    fail(breaker)
    clock.advance(10.0)
    with contextlib.suppress(DownError):
        async with breaker:
            await breaker.reset()
            raise DownError
    assert breaker.is_closed
    assert breaker.in_flight == 0


def test_a_breaker_that_is_gone_when_its_block_ends_does_no_harm() -> None:
    """The block no longer has a breaker to report to."""
    breakers = [half_open_breaker(FakeClock())]
    with contextlib.ExitStack() as stack:
        leave = breakers[0].__exit__
        breakers[0].__enter__()
        stack.push(leave)
        breakers.clear()
        gc.collect()


def test_an_exit_looked_up_for_one_breaker_does_not_end_the_block_of_another() -> None:
    """The exits of both breakers are looked up before either is entered."""
    clock = FakeClock()
    first, second = half_open_breaker(clock), half_open_breaker(clock)
    leave_first = first.__exit__
    second.__enter__()
    first.__enter__()
    leave_first(None, None, None)
    assert first.is_closed
    assert second.is_half_open
    second.__exit__(None, None, None)
    assert second.is_closed


def test_an_exit_without_an_enter_changes_no_state() -> None:
    """This applies to every state, and no call is in flight afterwards."""
    for state in CircuitState:
        breaker = CircuitBreaker("block", success_threshold=1, registry=None)
        breaker._state = state
        breaker.__exit__(DownError, DownError(), None)
        assert breaker.state is state
        assert breaker.in_flight == 0


def test_a_block_refused_counts_as_a_rejection() -> None:
    """A half-open circuit without a free slot refuses a block like a call."""
    breaker = half_open_breaker(FakeClock())
    RunningCall(breaker)
    with pytest.raises(CircuitOpenError), breaker:
        pass
    assert breaker.total_rejections == 1
