"""Calls of every form that a test runs step by step, and listeners for them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeAlias

from example_service.infra.resilience import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitBreaker,
    StateChanged,
)
from tests.unit.infra.resilience.breaker_model import ModelCall, ModelEvent

FAILED_RESULT = "failed"


class DownError(Exception):
    """An error that counts as a failure."""


class MissingError(DownError):
    """An error of an expected type that `is_failure` rejects."""


class BadRequestError(Exception):
    """An error outside the expected types."""


# --- Listeners with all hooks, and with one: the breaker takes other ways without `on_success`. ---


class TransitionListener:
    """Receives only transitions."""

    def __init__(self) -> None:
        self.events: list[ModelEvent] = []

    def on_state_change(self, event: StateChanged, /) -> None:
        """Record both states and the wait."""
        self.events.append(
            ("changed", event.from_state.value, event.to_state.value, event.wait_seconds)
        )


class StoryListener(TransitionListener):
    """Receives all events."""

    def on_success(self, event: CallSucceeded, /) -> None:
        """Record the duration."""
        self.events.append(("succeeded", event.duration_seconds))

    def on_failure(self, event: CallFailed, /) -> None:
        """Record the duration."""
        self.events.append(("failed", event.duration_seconds))

    def on_rejection(self, event: CallRejected, /) -> None:
        """Record the state and the wait."""
        self.events.append(("rejected", event.state.value, event.retry_after))


# --- Real calls, driven by hand so that every interleaving is under control. ---


class Pause:
    """Awaited once by a guarded function; the test sends the outcome into it."""

    def __await__(self) -> Generator[None, str, str]:
        """Return control to the test."""
        return (yield)


@dataclass
class Bench:
    """A breaker and the functions that it guards."""

    breaker: CircuitBreaker
    started: int = 0

    async def work(self) -> str:
        """Run until the test decides the outcome."""
        self.started += 1
        return await Pause()

    def plain(self) -> Awaitable[str]:
        """A plain function that returns a coroutine."""
        return self.work()

    async def stream(self) -> AsyncGenerator[str]:
        """An async generator with one item."""
        yield await self.work()

    async def block(self) -> str:
        """`async with` around the work."""
        async with self.breaker:
            return await self.work()

    async def sync_block(self) -> str:
        """`with` around the work."""
        with self.breaker:
            return await self.work()

    async def async_stack(self) -> str:
        """`async with` on an exit stack around the work."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.breaker)
            return await self.work()

    async def sync_stack(self) -> str:
        """`with` on an exit stack around the work."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.breaker)
            return await self.work()

    def start(self, form: str) -> "InContext":
        """A coroutine that makes a guarded call in the given form."""
        guard = self.breaker.protected
        starts: dict[str, Callable[[], Any]] = {
            "decorator": guard(self.work),
            "decorated plain function": lambda: self._awaiting(guard(self.plain)),
            "stream": lambda: self._reading(guard(self.stream)()),
            "call": lambda: self.breaker.call(self.work),
            "call of a plain function": lambda: self.breaker.call(self.plain),
            "async with": self.block,
            "with": self.sync_block,
            "async exit stack": self.async_stack,
            "exit stack": self.sync_stack,
        }
        return InContext(starts[form]())

    @staticmethod
    async def _awaiting(func: Callable[[], Awaitable[str]]) -> str:
        return await func()

    @staticmethod
    async def _reading(stream: AsyncGenerator[str]) -> str:
        return "".join([item async for item in stream])


# Forms whose results are not evaluated.
FORMS_WITHOUT_RESULT = ("stream", "async with", "with", "async exit stack", "exit stack")
FORMS = (
    "decorator",
    "decorated plain function",
    "call",
    "call of a plain function",
    *FORMS_WITHOUT_RESULT,
)
MODE_REASON = "the test says so"

ENDS: dict[str, tuple[str, type[BaseException] | None]] = {
    "value": ("success", None),
    "failed result": ("failure", None),
    "exception": ("failure", DownError),
    "unexpected exception": ("neutral", BadRequestError),
    "exception refused by is_failure": ("neutral", MissingError),
    "cancellation": ("neutral", asyncio.CancelledError),
    "interrupt": ("neutral", KeyboardInterrupt),
    "abandoned": ("neutral", GeneratorExit),
}


class InContext:
    """A coroutine that runs in its own context, as in a task.

    Args:
        coroutine: The coroutine, which advances with each step.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, str]) -> None:
        self._coroutine = coroutine
        self._context = copy_context()

    def send(self, value: Any) -> None:
        """Advance it to its next suspension."""
        self._context.run(self._coroutine.send, value)

    def throw(self, error: BaseException) -> None:
        """Raise an exception at the point where it is suspended."""
        self._context.run(self._coroutine.throw, error)

    def close(self) -> None:
        """Abandon it."""
        self._context.run(self._coroutine.close)


Running: TypeAlias = tuple[InContext, ModelCall, str]
