"""Background tasks that survive errors and can finish their work before they stop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any


@asynccontextmanager
async def in_background(
    work: Coroutine[Any, Any, None], stopped: asyncio.Event, *, name: str, stop_seconds: float
) -> AsyncIterator[None]:
    """Run a coroutine in a task until the end of the block, which waits for it to stop.

    Args:
        work: The coroutine. It must end soon after `stopped` is set.
        stopped: The event that is set at the end of the block.
        name: The name of the task.
        stop_seconds: How long to wait before the task is cancelled, in seconds.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        stopped.set()
        _, unfinished = await asyncio.wait([task], timeout=stop_seconds)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def pause(stopped: asyncio.Event, seconds: float) -> None:
    """Sleep for `seconds`, or until `stopped` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopped.wait()


class KeepGoing:
    """A context manager for repeated work that logs exceptions instead of raising them.

    If the same type of exception occurs repeatedly, for example because the schema is missing, only
    the first one is logged until the work succeeds again.

    Args:
        logger: The logger to write to.
        message: The text of the log line. A traceback is added.

    Example:
        ```python
        keep_going = KeepGoing(logger, "The count failed; it goes on")
        while True:
            with keep_going:
                await count()
            await asyncio.sleep(1.0)
        ```
    """

    def __init__(self, logger: logging.Logger, message: str) -> None:
        self._logger = logger
        self._message = message
        self._known: type[BaseException] | None = None

    def __enter__(self) -> None:
        """Start the work."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if kind is not None and not issubclass(kind, Exception):
            return False
        if kind is not None and kind is not self._known:
            self._logger.error(self._message, extra={"error": kind.__name__}, exc_info=error)
        self._known = kind
        return True
