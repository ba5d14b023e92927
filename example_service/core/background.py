"""Work beside the requests, which goes on whatever fails, and may finish what it has begun."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
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


class UnexpectedErrors:
    """Keeps work going that is repeated, and logs what it did not expect.

    A missing schema, say, fails each time. Only the first error of a type is logged, until the work
    has succeeded.

    Args:
        logger: Writes the log line.
        message: What the line says; the traceback follows.
    """

    def __init__(self, logger: logging.Logger, message: str) -> None:
        self._logger = logger
        self._message = message
        self._known: type[Exception] | None = None

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Do the work once, and log instead of raising."""
        try:
            yield
        except Exception as error:
            if type(error) is not self._known:
                self._logger.exception(self._message, extra={"error": type(error).__name__})
            self._known = type(error)
        else:
            self._known = None
