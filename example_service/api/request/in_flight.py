"""The requests that are being served, and one timer for the time limits of all of them.

`asyncio.timeout` costs every request two microseconds for a timer that almost never fires. As all
requests have the same limit, the one that came first is the first to be late: one timer that waits
for the oldest request is enough, and a request pays for two dictionary operations.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Protocol


class Expiring(Protocol):
    """A request with a time limit."""

    started_at: float
    """Seconds on the clock when the time began to count."""

    began: bool
    """Whether the answer has begun; after that, it may take as long as it needs."""

    expired: bool
    """Whether its time is over; it may still be cleaning up."""

    def expire(self) -> None:
        """End the request, because its time is over; called from the event loop."""


class InFlight(dict[Expiring, None]):
    """The requests in flight, oldest first: keys are added at the start and deleted at the end.

    After adding one, call `watch` unless `watching_loop` is the running loop.

    Args:
        limit_seconds: Seconds after which a request expires whose answer has not begun.
        clock: Where "now" comes from, in seconds.

    Attributes:
        watching_loop: The event loop whose timer is running; None where there is none.
    """

    def __init__(self, limit_seconds: float, *, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__()
        self.watching_loop: asyncio.AbstractEventLoop | None = None
        self._limit_seconds = limit_seconds
        self._clock = clock

    def watch(self) -> None:
        """Start the timer."""
        self._wait(self._limit_seconds)

    def expire_oldest(self) -> None:
        """End the request that came first, of those whose time is not over."""
        for request in self:
            if not request.expired:
                request.expire()
                return

    def _wait(self, seconds: float) -> None:
        self.watching_loop = asyncio.get_running_loop()
        self.watching_loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self.watching_loop = None
        now = self._clock()
        for request in self:
            if request.began or request.expired:
                continue
            left = request.started_at + self._limit_seconds - now
            if left > 0:
                self._wait(left)
                return
            request.expire()
