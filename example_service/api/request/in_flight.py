"""The requests in flight, with a single timer for their time limits.

`asyncio.timeout` costs every request 2 µs for a timer that almost never fires. All requests have
the same limit, so the oldest one expires first. A single timer for the oldest request is enough,
and each request only costs two dictionary operations.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Protocol


class Expiring(Protocol):
    """A request with a time limit."""

    started_at: float
    """When the time limit began to run, in seconds on the clock of `InFlight`."""

    began: bool
    """Whether the response has started. It then has no time limit."""

    expired: bool
    """Whether the request has exceeded its limit. It may still be cleaning up."""

    def expire(self) -> None:
        """End the request because it exceeded its limit. Called from the event loop."""


class InFlight(dict[Expiring, None]):
    """The requests in flight, oldest first.

    Add each request as a key when it starts, and remove the key when it ends; `exceeds` may have
    removed it before. After adding a request, call `watch` unless `watching_loop` is the running
    loop.

    Args:
        limit_seconds: Seconds after which a request expires if its response has not started.
        clock: Returns the current time in seconds.

    Attributes:
        watching_loop: The event loop whose timer is running. None if no timer is running.
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
        """Expire the oldest request that has not expired yet."""
        for request in self:
            if not request.expired:
                request.expire()
                return

    def exceeds(self, limit: int) -> bool:
        """Whether more requests than `limit` wait for their responses to start.

        Requests whose response has started are forgotten. They have no time limit, and most of
        them only wait for their clients to read.
        """
        if len(self) > limit:
            for request in [request for request in self if request.began]:
                del self[request]
        return len(self) > limit

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
