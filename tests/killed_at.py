"""Cancel work at a chosen step."""

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def killed_at(step: int, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and cancel its task at the given await, if it has that many.

    Args:
        step: The number of the await, counting from 0 those that do not end at once.
        work: The coroutine.
    """
    return await _killed_at(step, work)


@coroutine
def _killed_at(step: int, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    proceed = partial(work.send, None)
    while True:
        try:
            awaited = proceed()
        except StopIteration as end:
            result: T = end.value
            return result
        if step == 0 and (task := asyncio.current_task()) is not None:
            task.cancel()
        step -= 1
        try:
            yield awaited
            proceed = partial(work.send, None)
        except BaseException as error:  # noqa: BLE001 - every error is passed to the work
            proceed = partial(work.throw, error)
