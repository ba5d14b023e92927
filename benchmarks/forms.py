"""The ways to call through a breaker, each as a loop to time."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass

from benchmarks.contender import AsyncFunction, Forms
from benchmarks.rounds import Slice

Ignored = type[BaseException] | tuple[type[BaseException], ...]


class DependencyError(Exception):
    """The failure of the guarded function."""


async def succeed() -> None:
    """Return at once."""


async def succeed_later() -> None:
    """Yield to all other tasks, then return."""
    await asyncio.sleep(0)


async def fail() -> None:
    """Raise at once.

    Raises:
        DependencyError: Always.
    """
    raise DependencyError


@dataclass(frozen=True, slots=True)
class Form:
    """One way to call through a breaker.

    Attributes:
        name: The name in the tables.
        slice: Returns the loop that calls a function through a breaker's forms and swallows one
            type of exception, or None if the breaker lacks the form.
    """

    name: str
    slice: Callable[[Forms, AsyncFunction, Ignored], Slice | None]


def through_decorator(forms: Forms, function: AsyncFunction, ignored: Ignored) -> Slice | None:
    """Call a decorated function repeatedly."""
    return None if forms.decorate is None else calling(forms.decorate(function), ignored)


def calling(function: AsyncFunction, ignored: Ignored) -> Slice:
    """Call a function as it is repeatedly."""

    async def run(count: int) -> None:
        for _ in range(count):
            try:  # noqa: SIM105  # `suppress` costs as much as a breaker.
                await function()
            except ignored:
                pass

    return run


def through_call(forms: Forms, function: AsyncFunction, ignored: Ignored) -> Slice | None:
    """Pass a function to ``call`` repeatedly."""
    call = forms.call
    if call is None:
        return None

    async def run(count: int) -> None:
        for _ in range(count):
            try:  # noqa: SIM105  # `suppress` costs as much as a breaker.
                await call(function)
            except ignored:
                pass

    return run


def through_block(forms: Forms, function: AsyncFunction, ignored: Ignored) -> Slice | None:
    """Call a function inside a block repeatedly."""
    if forms.block is not None:
        return _inside_async_block(forms.block, function, ignored)
    if forms.sync_block is not None:
        return _inside_sync_block(forms.sync_block, function, ignored)
    return None


def _inside_async_block(
    block: AbstractAsyncContextManager[object], function: AsyncFunction, ignored: Ignored
) -> Slice:
    async def run(count: int) -> None:
        for _ in range(count):
            try:
                async with block:
                    await function()
            except ignored:
                pass

    return run


def _inside_sync_block(
    enter: Callable[[], AbstractContextManager[object]], function: AsyncFunction, ignored: Ignored
) -> Slice:
    async def run(count: int) -> None:
        for _ in range(count):
            try:
                with enter():
                    await function()
            except ignored:
                pass

    return run


DECORATOR = Form("decorator", through_decorator)
BLOCK = Form("async with", through_block)
CALL = Form("call", through_call)


async def use(forms: Forms, function: AsyncFunction) -> None:
    """Call a function once through ``call`` and swallow its failure."""
    run = through_call(forms, function, DependencyError)
    if run is not None:
        await run(1)
