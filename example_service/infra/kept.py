"""A value that takes a while to compute, computed once for everyone who asks within a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_SECONDS = 1.0


class Kept(Generic[T]):
    """Computes a value when it is asked for, shares it, and keeps it for a while.

    However many ask, it is computed once at a time, and not again before its time is over.

    Args:
        compute: Computes the value.
        seconds: How long a value is kept.
        clock: Where "now" comes from, in seconds.
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
        """The value, as it was computed at most `seconds` ago.

        Raises:
            Exception: Whatever `compute` raises; the next call computes again.
        """
        if self._kept_until is not None and self._clock() < self._kept_until:
            return self._value  # type: ignore[return-value]
        if self._run is None:
            self._run = asyncio.create_task(self._compute_and_keep())
            self._run.add_done_callback(self._finish)
        # A caller that stops waiting must not take the value from the others.
        return await asyncio.shield(self._run)

    async def _compute_and_keep(self) -> T:
        self._value = await self._compute()
        self._kept_until = self._clock() + self._seconds
        return self._value

    def _finish(self, run: asyncio.Task[T]) -> None:
        self._run = None
        if not run.cancelled():
            # Its callers get the error; it is not also reported as never retrieved.
            run.exception()
