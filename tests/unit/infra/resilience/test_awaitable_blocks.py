"""An object that can be awaited or entered, as requests of aiohttp can, is guarded either way."""

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

import pytest

from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.infra.resilience.testing import FakeClock
from tests.unit.infra.resilience.breakers import (
    BadRequestError,
    DownError,
    half_opened,
    make_breaker,
    opened,
)


class Request:
    """A request that is sent when it is awaited or entered.

    Args:
        error: What sending it raises.
        error_at_exit: What leaving its block raises.
        suppresses: Whether leaving its block suppresses the exception in it.
    """

    def __init__(
        self,
        error: Exception | None = None,
        error_at_exit: Exception | None = None,
        *,
        suppresses: bool = False,
    ) -> None:
        self.error = error
        self.error_at_exit = error_at_exit
        self.suppresses = suppresses

    async def _send(self) -> str:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return "response"

    def __await__(self) -> Generator[Any, Any, str]:
        """Send it."""
        return self._send().__await__()

    async def __aenter__(self) -> str:
        """Send it."""
        return await self._send()

    async def __aexit__(self, *_: object) -> bool:
        """Release the connection."""
        if self.error_at_exit is not None:
            raise self.error_at_exit
        return self.suppresses


FORMS: dict[str, Callable[..., Any]] = {
    "protected": lambda breaker, *args, **kw: breaker.protected(Request)(*args, **kw),
    "call_sync": lambda breaker, *args, **kw: breaker.call_sync(Request, *args, **kw),
}


def raise_down() -> None:
    """Fail."""
    raise DownError


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Failures, successes and calls in flight."""
    return breaker.total_failures, breaker.total_successes, breaker.in_flight


@pytest.mark.parametrize("form", FORMS)
class TestEveryForm:
    """The decorator and `call_sync`."""

    async def test_it_can_be_awaited(self, form: str) -> None:
        """The call ends when it has been awaited."""
        breaker = make_breaker()
        assert await FORMS[form](breaker) == "response"
        assert counts(breaker) == (0, 1, 0)
        with pytest.raises(DownError):
            await FORMS[form](breaker, DownError())
        assert counts(breaker) == (1, 1, 0)

    async def test_it_can_be_a_task(self, form: str) -> None:
        """The object is of the kind that tasks take, and a task may be cancelled."""
        breaker = make_breaker()
        assert await asyncio.create_task(FORMS[form](breaker)) == "response"
        task = asyncio.create_task(FORMS[form](breaker))
        await asyncio.sleep(0)
        assert counts(breaker) == (0, 1, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counts(breaker) == (0, 1, 0)

    async def test_it_can_be_entered(self, form: str) -> None:
        """The call ends with the block, as in `async with breaker:` around it."""
        breaker = half_opened(FakeClock(), half_open_max_calls=1, success_threshold=1)
        async with FORMS[form](breaker) as response:
            assert response == "response"
            assert breaker.in_flight == 1
            with pytest.raises(CircuitOpenError):
                await asyncio.create_task(breaker.call(asyncio.sleep, 0), context=Context())
        assert breaker.is_closed

    @pytest.mark.parametrize("given", [{"error": DownError()}, {"error_at_exit": DownError()}])
    async def test_what_its_block_raises_counts(
        self, form: str, given: dict[str, Exception]
    ) -> None:
        """It is judged when the block is entered, in it, and when it is left."""
        breaker = make_breaker()
        with pytest.raises(DownError):
            async with FORMS[form](breaker, **given):
                pass
        assert counts(breaker) == (1, 0, 0)
        with pytest.raises(DownError):
            async with FORMS[form](breaker):
                raise DownError
        assert counts(breaker) == (2, 0, 0)
        with pytest.raises(BadRequestError):
            async with FORMS[form](breaker):
                raise BadRequestError
        assert counts(breaker) == (2, 0, 0)

    async def test_a_suppressed_exception_is_a_success(self, form: str) -> None:
        """What the object swallows did not end the call."""
        breaker = make_breaker()
        async with FORMS[form](breaker, suppresses=True):
            raise_down()
        assert counts(breaker) == (0, 1, 0)

    async def test_it_is_refused_by_an_open_circuit(self, form: str) -> None:
        """The circuit may also have opened between the call and the block."""
        breaker = make_breaker()
        request = FORMS[form](breaker)
        breaker.force_open("for the test")
        with pytest.raises(CircuitOpenError):
            async with request:
                pass
        with pytest.raises(CircuitOpenError):
            FORMS[form](opened(FakeClock()))
        assert counts(breaker) == (0, 0, 0)


async def test_call_awaits_it() -> None:
    """`call` returns what it gives."""
    breaker = make_breaker()
    assert await breaker.call(Request) == "response"
    assert counts(breaker) == (0, 1, 0)


async def test_one_that_is_neither_awaited_nor_entered_takes_no_slot() -> None:
    """It can be closed, as a coroutine can."""
    breaker = make_breaker()
    FORMS["protected"](breaker).close()
    assert counts(breaker) == (0, 0, 0)


async def test_an_exception_can_be_thrown_into_it() -> None:
    """This is what a task does to cancel it."""
    breaker = make_breaker()
    request = FORMS["protected"](breaker)
    request.send(None)
    with pytest.raises(DownError):
        request.throw(DownError())
    assert counts(breaker) == (1, 0, 0)
