"""A breaker's lock, usable with `with` and with `async with`."""

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import RLock


class StateLock:
    """Shows a thread lock to code that writes `async with breaker._lock`.

    An `asyncio.Lock` belongs to one event loop and does nothing between threads. A breaker made at
    import time serves many of both, so its decisions are guarded by a re-entrant thread lock that
    is held for less than a microsecond and never across an `await`. Holding this one across an
    `await` keeps other threads out, but not other tasks of the same thread.

    Args:
        lock: The breaker's thread lock.
    """

    __slots__ = ("_lock",)

    def __init__(self, lock: "RLock") -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
