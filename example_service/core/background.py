"""Work beside the requests, which may finish at the end what it has begun."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
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
