"""A neutral outcome, which says nothing about the dependency, only returns its permit."""

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    FORMS,
    PLAIN_FORMS,
    BadRequestError,
    fail,
    half_opened,
    make_breaker,
)

STATES: dict[str, Callable[[], CircuitBreaker]] = {
    "closed": make_breaker,
    "half-open": lambda: half_opened(FakeClock(), half_open_max_calls=1),
}


def assert_untouched(breaker: CircuitBreaker, state: str) -> None:
    """The state is unchanged, nothing was counted, and all permits have been returned."""
    metrics = breaker.get_metrics()
    assert metrics["state"] == state.replace("-", "_")
    assert metrics["total_successes"] == 0
    assert metrics["total_failures"] == (0 if state == "closed" else 5)
    assert metrics["success_count"] == 0
    assert metrics["in_flight"] == 0


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", FORMS)
class TestCoroutines:
    """Every form of call of a coroutine function, closed and half-open."""

    @pytest.mark.parametrize(
        "error", [BadRequestError("mine"), KeyboardInterrupt("mine"), SystemExit("mine")]
    )
    async def test_other_exceptions_pass_through(
        self, form: str, state: str, error: BaseException
    ) -> None:
        """The caller receives the same exception object."""

        async def work() -> None:
            raise error

        breaker = STATES[state]()
        with pytest.raises(type(error)) as caught:
            await FORMS[form](breaker, work)
        assert caught.value is error
        assert_untouched(breaker, state)

    async def test_a_cancelled_task(self, form: str, state: str) -> None:
        """A client that disconnects says nothing about the dependency."""
        breaker = STATES[state]()
        task = asyncio.ensure_future(FORMS[form](breaker, asyncio.Event().wait))
        await asyncio.sleep(0)
        assert breaker.in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_untouched(breaker, state)

    async def test_an_outer_timeout(self, form: str, state: str) -> None:
        """Its cancellation is passed on, and becomes a TimeoutError outside."""
        breaker = STATES[state]()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await FORMS[form](breaker, asyncio.Event().wait)
        assert_untouched(breaker, state)

    async def test_an_abandoned_call(self, form: str, state: str) -> None:
        """A coroutine that is dropped half-way has ended without being awaited."""
        breaker = STATES[state]()
        coroutine: Any = FORMS[form](breaker, asyncio.Event().wait)
        coroutine.send(None)
        assert breaker.in_flight == 1
        del coroutine
        gc.collect()
        assert_untouched(breaker, state)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", PLAIN_FORMS)
@pytest.mark.parametrize("error", [BadRequestError("mine"), KeyboardInterrupt("mine")])
def test_other_exceptions_of_plain_functions_pass_through(
    form: str, state: str, error: BaseException
) -> None:
    """The caller receives the same exception object."""

    def work() -> None:
        raise error

    breaker = STATES[state]()
    with pytest.raises(type(error)) as caught:
        PLAIN_FORMS[form](breaker, work)
    assert caught.value is error
    assert_untouched(breaker, state)


async def test_an_inner_timeout_is_a_failure() -> None:
    """A TimeoutError raised by the guarded function does say something about the dependency."""

    async def work() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    breaker = make_breaker(expected_exception=TimeoutError, failure_threshold=1)
    with pytest.raises(TimeoutError):
        await breaker.call(work)
    assert breaker.is_open


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
class TestPlainFunctionThatReturnsACoroutine:
    """A plain decorator around a coroutine function creates such functions."""

    async def test_a_task_cancelled_before_its_first_step_gives_its_permit_back(self) -> None:
        """Cancellation is neutral, even before the first step."""
        breaker = make_breaker()

        async def work() -> None:
            """Never reached."""

        @breaker
        def plain() -> Coroutine[Any, Any, None]:
            return work()

        task = asyncio.ensure_future(plain())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        assert breaker.in_flight == 0

    def test_a_coroutine_that_is_never_awaited_gives_its_permit_back(self) -> None:
        """Dropping the coroutine abandons the call."""
        breaker = make_breaker()

        async def work() -> None:
            """Never reached."""

        def plain() -> object:
            return work()

        dropped = breaker.protected(plain)()
        del dropped
        gc.collect()
        assert breaker.in_flight == 0

    async def test_its_outcome_is_that_of_the_coroutine(self) -> None:
        """The coroutine is guarded from start to end, and may be refused when it starts."""
        breaker = make_breaker(failure_threshold=1)
        calls = 0

        async def work() -> str:
            nonlocal calls
            calls += 1
            return "done"

        def plain() -> Coroutine[Any, Any, str]:
            return work()

        assert await breaker.protected(plain)() == "done"
        assert breaker.total_successes == 1
        waiting = breaker.protected(plain)()
        fail(breaker)
        with pytest.raises(CircuitOpenError):
            await waiting
        assert calls == 1
        assert breaker.in_flight == 0
