"""Work beside the requests, which goes on whatever fails, and may finish what it has begun."""

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
    """Run work until the end of the block, which then waits for it, with a limit.

    Args:
        work: Ends soon after `stopped` is set.
        stopped: Is set at the end of the block.
        name: Name of the task.
        stop_seconds: How long the work has to end before it is cancelled.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        stopped.set()
        _, unfinished = await asyncio.wait([task], timeout=stop_seconds)
        for one in unfinished:
            one.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def pause(stopped: asyncio.Event, seconds: float) -> None:
    """Wait for so many seconds, or until `stopped` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopped.wait()


class KeepGoing:
    """Surrounds work that is repeated: logs an unexpected error instead of raising it.

    A missing schema, say, fails each time. Only the first error of a type is logged, until the work
    has succeeded.

    Args:
        logger: Writes the log line.
        message: What the line says; the traceback follows.

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
        """Begin the work."""

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
