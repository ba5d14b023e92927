"""A short-lived cache for a value that is slow to compute."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_SECONDS = 1.0


class Kept(Generic[T]):
    """Computes a value on demand and caches it. Simultaneous callers share one computation.

    Args:
        compute: Computes the value.
        seconds: How long a value is cached, in seconds.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        compute: Callable[[], Awaitable[T]],
        *,
        seconds: float = KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compute = compute
        self._seconds = seconds
        self._clock = clock
        self._value: T | None = None
        self._kept_until: float | None = None
        self._run: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the value, computed at most `seconds` ago.

        Raises:
            Exception: Any exception that `compute` raises. The next call computes again.
        """
        if self._kept_until is not None and self._clock() < self._kept_until:
            return self._value  # type: ignore[return-value]
        if self._run is None:
            self._run = asyncio.create_task(self._compute_and_keep())
            self._run.add_done_callback(self._finish)
        # Cancelling one caller must not cancel the computation for the others.
        return await asyncio.shield(self._run)

    async def _compute_and_keep(self) -> T:
        self._value = await self._compute()
        self._kept_until = self._clock() + self._seconds
        return self._value

    def _finish(self, run: asyncio.Task[T]) -> None:
        self._run = None
        if not run.cancelled():
            # The callers receive the exception; retrieving it keeps asyncio from logging it too.
            run.exception()
